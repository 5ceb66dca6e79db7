"""Exported backbones at work on this machine's processor, and how near they are to the original."""

import contextlib
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.backbones.network import Backbone
from models.backbones.weights import resize_to_square
from models.weight_files.export import need_package, quiet

Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
_WARM_UP, _ROUNDS = 3, 15


@dataclass(frozen=True)
class Comparison:
    """One exported file beside the original.

    Attributes:
        megabytes: size of the file (with its weights), 10^6 bytes.
        milliseconds: per face, one at a time, one thread, median; ``original_milliseconds`` likewise, same run.
        cosine_min, cosine_median: of the embeddings to the original's.
        same_class: share of pictures with the same largest logit.
    """

    megabytes: float
    milliseconds: float
    original_milliseconds: float
    cosine_min: float
    cosine_median: float
    same_class: float


def open_exported(path: Path, *, threads: int = 1) -> Run:
    """A function from pixels uint8 [n, px, px, 3] to (embeddings [n, D], logits [n, C])."""
    if path.suffix == ".xml":
        openvino = need_package("openvino")
        core = openvino.Core()
        # Pinned threads of several processes would all sit on the first cores.
        core.set_property("CPU", {"ENABLE_CPU_PINNING": False, "INFERENCE_NUM_THREADS": threads})
        model = core.compile_model(str(path), "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"})
        return lambda pixels: tuple(model(pixels)[name] for name in ("embeddings", "logits"))
    if path.suffix == ".pte":
        return _open_executorch(path, threads)
    onnxruntime = need_package("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Without VNNI, x86 adds two products in 16 bits, where 8-bit weights saturate; devices do not.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda pixels: tuple(session.run(["embeddings", "logits"], {"pixels": pixels}))


def _open_executorch(path: Path, threads: int) -> Run:
    """One picture at a time, as the file wants it."""
    # Its native code tells sys.stderr about the processor, and cannot be asked not to.
    with quiet(), contextlib.redirect_stderr(io.StringIO()):
        runtime = need_package("executorch.runtime").Runtime.get()
        need_package("executorch.extension.pybindings.portable_lib")._unsafe_reset_threadpool(threads)
        method = runtime.load_program(path).load_method("forward")
        method.execute([torch.zeros(method.metadata.input_tensor_meta(0).sizes(), dtype=torch.uint8)])

    def run(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [method.execute([torch.from_numpy(pixels[i : i + 1])]) for i in range(len(pixels))]
        embeddings, logits = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
        return embeddings, logits

    return run


def compare_export(backbone: Backbone, path: Path, pictures: Sequence[np.ndarray]) -> Comparison:
    """Size, speed and agreement on pictures [h, w, 3] of faces."""
    run, size = open_exported(path), backbone.spec.input_px
    pixels = np.stack([resize_to_square(picture, size) for picture in pictures])
    embeddings, logits = (np.concatenate(parts) for parts in zip(*(run(p[None]) for p in pixels), strict=True))
    expected, expected_logits = backbone.extract(pictures)
    products = (embeddings * expected).sum(axis=1)
    cosine = products / (np.linalg.norm(embeddings, axis=1) * np.linalg.norm(expected, axis=1))
    files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    return Comparison(
        megabytes=sum(file.stat().st_size for file in files) / 1e6,
        milliseconds=_milliseconds(lambda: run(pixels[:1])),
        original_milliseconds=torch_milliseconds(backbone),
        cosine_min=float(cosine.min()),
        cosine_median=float(np.median(cosine)),
        same_class=float((logits.argmax(axis=1) == expected_logits.argmax(axis=1)).mean()),
    )


def torch_milliseconds(backbone: Backbone) -> float:
    """Per face with the original network: one at a time, one thread, median."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    size = backbone.spec.input_px
    x = torch.zeros(1, 3, size, size).contiguous(memory_format=torch.channels_last)
    try:
        with torch.inference_mode():
            return _milliseconds(lambda: backbone.network(x))
    finally:
        torch.set_num_threads(before)


def _milliseconds(call: Callable[[], object]) -> float:
    for _ in range(_WARM_UP):
        call()
    seconds = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return 1000 * float(np.median(seconds))
