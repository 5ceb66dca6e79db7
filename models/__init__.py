"""Arrays in, arrays out: detector, backbones, heads, decisions. Knows neither files of a store nor flows."""

import sys

# OpenVINO imports this package if it can. It would report each import to Google Analytics, under an identifier that it
# writes into the home folder, and start a thread.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
