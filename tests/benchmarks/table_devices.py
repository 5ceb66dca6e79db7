"""Compare backbones on devices like the paper's table for a phone: size of the files, and milliseconds per face.

Milliseconds are processor time of one thread, which other programs on the machine change little. Weights that are not
bundled are random, because size and speed do not depend on them. Run it in the environment of make test-services.
"""

import functools
import http.server
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import safetensors.torch
import torch

from models.backbones.network import build_network, load_backbone
from models.backbones.registry import get_spec
from models.weight_files.export import ExportFormat, export_backbone, open_exported
from tasks.web.web_page import write_web_page
from tests.browser import Browser, running_browser

NAMES = ("mobilenet_v1", "tf_efficientnet_b0", "tf_efficientnet_b2", "emotion_lite0")
FORMATS: tuple[ExportFormat, ...] = ("onnx", "onnx-int8", "executorch")
CALLS = 20
# Runs the page's own modules: crop, resizing and network, without the detector.
WORKER = """
import * as ort from "./onnxruntime/ort.wasm.bundle.min.js";
import { Backbone } from "./backbone.js";
const bytes = async (path) => new Uint8Array(await (await fetch(path)).arrayBuffer());
const settings = await (await fetch("settings.json")).json();
ort.env.wasm.wasmBinary = await bytes(settings.runtime.path);
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(await bytes(settings.networks.backbone.path));
const run = (values, shape) => session.run({ pixels: new ort.Tensor("uint8", values, shape) });
const backbone = new Backbone(run, settings.backbone);
const noise = new Uint8Array(320 * 320 * 3).map((_, i) => (i * 7919) % 251);
const image = { data: noise, width: 320, height: 320, channels: 3 };
self.onmessage = async ({ data: calls }) => {
  for (let i = 0; i < calls; i++) await backbone.predict(image, [[50, 50, 180, 210]]);
  self.postMessage(calls);
};
self.postMessage("ready");
"""
ASK = "(calls) => new Promise((done) => { worker.onmessage = done; worker.postMessage(calls); }).then(() => null)"
START = """() => new Promise((done) => {
  window.worker = new Worker("measure.js", { type: "module" });
  worker.onmessage = done;
}).then(() => null)"""


class Server(http.server.SimpleHTTPRequestHandler):
    """Serve files without log lines."""

    def log_message(self, *_: object) -> None:
        pass


def milliseconds_here(call: Callable[[], object]) -> float:
    """Return the median processor time of a call."""
    for _ in range(3):
        call()
    spent = []
    for _ in range(CALLS):
        started = time.process_time()
        call()
        spent.append(time.process_time() - started)
    return 1000 * statistics.median(spent)


def worker_milliseconds() -> float:
    """Return the processor time of all workers of the browser's pages so far."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        for thread in Path(f"/proc/{process.pid}/task").glob("*"):
            if thread.joinpath("comm").read_text().startswith("DedicatedWorker"):
                total += int(thread.joinpath("schedstat").read_text().split()[0])
    return total / 1e6


def milliseconds_in_browser(browser: Browser, folder: Path) -> float:
    """Return the median processor time of a face in the page of a folder."""
    (folder / "measure.js").write_text(WORKER)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        opened = browser.open(f"http://127.0.0.1:{server.server_port}/")
        opened.wait_until("document.documentElement.dataset.ready === ''")
        opened.page.evaluate(START)
        opened.page.evaluate(ASK, 4 * CALLS)
        spent = []
        for _ in range(CALLS):
            before = worker_milliseconds()
            opened.page.evaluate(ASK, 2)
            spent.append((worker_milliseconds() - before) / 2)
        opened.page.context.close()
        server.shutdown()
    return statistics.median(spent)


def main() -> None:
    """Print a row per backbone: for each format MB and ms per face; for web, the MB of the whole page."""
    torch.manual_seed(0)
    face = np.random.default_rng(0).integers(0, 255, (160, 130, 3), np.uint8)
    with tempfile.TemporaryDirectory() as root:
        pages = {}
        for name in NAMES:
            spec, folder = get_spec(name), Path(root) / name
            folder.mkdir()
            weights = None
            if not spec.bundled:
                weights = folder / "weights.safetensors"
                safetensors.torch.save_file(build_network(spec).state_dict(), weights)
            backbone, pixels = (
                load_backbone(name, weights=weights),
                np.zeros((1, spec.input_px, spec.input_px, 3), "u1"),
            )
            row = f"{name:>20}"
            for wanted in FORMATS:
                path = export_backbone(backbone, wanted, folder, calibration=[face])
                spent = milliseconds_here(functools.partial(open_exported(path), pixels))
                row += f"  {wanted} {path.stat().st_size / 1e6:.1f} MB {spent:.1f} ms"
            pages[name] = write_web_page(backbone, folder / "web", name=name, is_own_file=not spec.bundled)
            print(row, flush=True)
        with running_browser() as browser:
            for name, page in pages.items():
                spent = milliseconds_in_browser(browser, page.folder)
                print(f"{name:>20}  web {page.megabytes:.1f} MB {spent:.1f} ms", flush=True)


if __name__ == "__main__":
    main()
