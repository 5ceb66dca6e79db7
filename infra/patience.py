"""How long a run waits for what has gone and may come back: a scheduler, workers (for S3 see ``s3_patience``)."""

import os

_VARIABLE = "AFFWILD2_PATIENCE_SECONDS"
_SECONDS = 300.0


def patience_seconds() -> float:
    """Five minutes, or what ``AFFWILD2_PATIENCE_SECONDS`` says.

    Raises:
        ValueError: that is no number above 0.
    """
    said = os.environ.get(_VARIABLE) or str(_SECONDS)
    try:
        seconds = float(said)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{_VARIABLE}: expected a number of seconds above 0, got {said!r}")
    return seconds
