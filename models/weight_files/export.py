"""Export networks to ONNX (also quantized to 8 bits), OpenVINO and ExecuTorch, and compare files with the original.

Normalisation is a part of the exported network. The packages come with the extra ``export``.
"""

import contextlib
import hashlib
import importlib
import io
import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from models.backbones.network import Backbone, ConvertibleNetwork
from models.backbones.registry import Interpolation
from models.backbones.resizing import resize_to_square

ExportFormat = Literal["onnx", "onnx-int8", "openvino", "executorch"]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
_SUFFIX: dict[ExportFormat, str] = {
    "onnx": ".onnx",
    "onnx-int8": ".int8.onnx",
    "openvino": ".xml",
    "executorch": ".pte",
}
_RESIZING: dict[Interpolation, str] = {
    "bilinear": "bilinear with antialiasing (Pillow's BILINEAR)",
    "opencv_bilinear": "bilinear without antialiasing (OpenCV's INTER_LINEAR)",
}
OPSET = 18
Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
_WARM_UP_CALLS, _TIMED_CALLS = 3, 15


def export_backbone(
    backbone: Backbone, file_format: ExportFormat, out: Path, *, calibration: list[np.ndarray] | None = None
) -> Path:
    """Write the network, and ``<file>.preprocessing.json`` next to it, which documents its use. Return the file's path.

    Input ``pixels`` uint8 [n, px, px, 3], red, green, blue; outputs ``embeddings`` [n, D] and ``logits`` [n, C]. With
    ``executorch`` n is 1, and XNNPACK, a library for mobile processors, runs the layers.
    ``calibration``: images of faces, required by ``onnx-int8``.

    Raises:
        ValueError: unknown format, a package of the extra is missing, or no images for calibration.
    """
    if file_format not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {file_format!r}")
    if file_format == "onnx-int8" and not calibration:
        raise ValueError("onnx-int8: expected images of faces to calibrate on, got none")
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{backbone.spec.name}{_SUFFIX[file_format]}"
    with tempfile.TemporaryDirectory(dir=out, prefix=".unfinished-") as scratch:
        plain, written = Path(scratch) / "plain.onnx", Path(scratch) / target.name
        if file_format == "executorch":
            _write_executorch(backbone, written)
        elif file_format == "onnx":
            _write_onnx(backbone, written)
        else:
            _write_onnx(backbone, plain)
            if file_format == "onnx-int8":
                _quantize(plain, written, backbone, calibration or [])
            else:
                openvino = import_package("openvino")
                openvino.save_model(openvino.convert_model(str(plain)), str(written), compress_to_fp16=True)
        described = json.dumps(_describe(backbone, written, target.name), indent=1) + "\n"
        (Path(scratch) / "preprocessing.json").write_text(described)
        if file_format == "openvino":
            os.replace(written.with_suffix(".bin"), target.with_suffix(".bin"))
        os.replace(Path(scratch) / "preprocessing.json", out / f"{target.name}.preprocessing.json")
        os.replace(written, target)
    return target


def export_detector(out: Path) -> dict[str, Path]:
    """Write the detector's networks as ONNX files, ``pnet.onnx`` and others; return their paths by name.

    Input ``pixels`` float32 [n, 3, h, w], normalised: (x - 127.5) / 128. Outputs: ``shift`` of the box, for O-Net also
    ``landmarks``, and ``probability`` of no face and of a face. The size of P-Net's input is free.

    Raises:
        ValueError: a package of the extra is missing.
    """
    from models.faces.mtcnn import build_networks

    out.mkdir(parents=True, exist_ok=True)
    written = {}
    for name, network in build_networks().items():
        size = {"rnet": 24, "onet": 48}.get(name, 12)
        outputs = ["shift", "landmarks", "probability"] if name == "onet" else ["shift", "probability"]
        axes = {0: "n", 2: "h", 3: "w"} if name == "pnet" else {0: "n"}
        written[name] = out / f"{name}.onnx"
        _write_network(network, torch.zeros(2, 3, size, size), outputs, axes, written[name])
    return written


def _write_onnx(backbone: Backbone, path: Path) -> None:
    example = torch.zeros(2, backbone.spec.input_px, backbone.spec.input_px, 3, dtype=torch.uint8)
    _write_network(ConvertibleNetwork(backbone), example, ["embeddings", "logits"], {0: "n"}, path)


def _write_network(
    network: torch.nn.Module, example: torch.Tensor, outputs: list[str], axes: dict[int, str], path: Path
) -> None:
    """Write a network with one input ``pixels``. ``axes``: names of the free axes of input and outputs."""
    import_package("onnx")
    with silence_exporters(), torch.inference_mode():
        torch.onnx.export(
            network,
            (example,),
            str(path),
            input_names=["pixels"],
            output_names=outputs,
            dynamic_axes={name: axes for name in ("pixels", *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )


def _write_executorch(backbone: Backbone, path: Path) -> None:
    size = backbone.spec.input_px
    with silence_exporters(), torch.no_grad():
        exir = import_package("executorch.exir")
        xnnpack = import_package("executorch.backends.xnnpack.partition.xnnpack_partitioner")
        example = torch.zeros(1, size, size, 3, dtype=torch.uint8)
        program = torch.export.export(ConvertibleNetwork(backbone), (example,))
        lowered = exir.to_edge_transform_and_lower(program, partitioner=[xnnpack.XnnpackPartitioner()])
        path.write_bytes(lowered.to_executorch().buffer)


def _quantize(plain: Path, target: Path, backbone: Backbone, calibration: list[np.ndarray]) -> None:
    """Quantize weights per channel and activations to 8 bits, with ranges from the calibration images."""
    quantization = import_package("onnxruntime.quantization")
    shapes = import_package("onnxruntime.quantization.shape_inference")
    prepared = target.with_suffix(".prepared.onnx")
    spec = backbone.spec

    class CalibrationImages(quantization.CalibrationDataReader):  # type: ignore[name-defined]
        def __init__(self) -> None:
            self._images: Iterator[np.ndarray] = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            if image is None:
                return None
            return {"pixels": resize_to_square(image, spec.input_px, spec.interpolation)[None]}

    with silence_exporters():
        shapes.quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(target),
            CalibrationImages(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            # Normalisation stays in float32. Without Clip, a ReLU6 would get the wide range of its input.
            op_types_to_quantize=["Conv", "Clip", "Gemm", "MatMul", "Add"],
        )


def _describe(backbone: Backbone, written: Path, name: str) -> dict[str, Any]:
    spec, count = backbone.spec, 1 if written.suffix == ".pte" else "n"
    files = [written, written.with_suffix(".bin")] if written.suffix == ".xml" else [written]
    return {
        "file": name,
        "sha256": {f"{name.rsplit('.', 1)[0]}{f.suffix}": hashlib.sha256(f.read_bytes()).hexdigest() for f in files},
        "weights_sha256": backbone.weights_digest,
        "input": {
            "name": "pixels",
            "type": "uint8",
            "shape": [count, spec.input_px, spec.input_px, 3],
            "channel_order": "RGB",
            "resize": f"{_RESIZING[spec.interpolation]}, straight to the square, shape not kept",
            "crop": "the face's box as the detector gives it, without margin",
            "normalisation": "inside the network: do not normalise",
        },
        "outputs": {
            "embeddings": {"shape": [count, spec.embedding_size], "meaning": "penultimate layer"},
            "logits": {
                "shape": [count, len(spec.class_names)],
                "classes": list(spec.class_names),
                "meaning": "not probabilities; p = exp(x - max x) / sum exp(x - max x) over the classes of expressions",
            },
        },
        "backbone": {key: value for key, value in asdict(spec).items() if key != "class_names"},
    }


def import_package(package: str) -> Any:
    """Import a package of the extra ``export``.

    Raises:
        ValueError: the package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(f"expected the package {package}, found none; install affwild2[export]") from error


@contextlib.contextmanager
def silence_exporters() -> Iterator[None]:
    """Suppress the warnings and log messages of exporters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


@dataclass(frozen=True)
class Comparison:
    """One exported file compared with the original network.

    Attributes:
        megabytes: size of the file including weights, 10^6 bytes.
        milliseconds: median per face, one face at a time, one thread; ``original_milliseconds`` likewise, same run.
        cosine_min, cosine_median: cosine similarity between the embeddings and the original's.
        same_class: share of images with the same largest logit.
    """

    megabytes: float
    milliseconds: float
    original_milliseconds: float
    cosine_min: float
    cosine_median: float
    same_class: float


def open_exported(path: Path) -> Predict:
    """Load an exported file as a function from pixels uint8 [n, px, px, 3] to (embeddings [n, D], logits [n, C]).

    The function runs on one thread.
    """
    if path.suffix == ".xml":
        openvino = import_package("openvino")
        core = openvino.Core()
        # With pinning, the threads of several processes would all run on the first cores.
        core.set_property("CPU", {"ENABLE_CPU_PINNING": False, "INFERENCE_NUM_THREADS": 1})
        model = core.compile_model(str(path), "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"})
        return lambda pixels: tuple(model(pixels)[name] for name in ("embeddings", "logits"))
    if path.suffix == ".pte":
        return _open_executorch(path)
    onnxruntime = import_package("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # Without VNNI, x86 adds two products in 16 bits, where 8-bit weights saturate; other devices do not.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda pixels: tuple(session.run(["embeddings", "logits"], {"pixels": pixels}))


def _open_executorch(path: Path) -> Predict:
    """Load an ExecuTorch file, which takes one image at a time."""
    # ExecuTorch prints the processor's features to sys.stderr and has no option to disable this.
    with silence_exporters(), contextlib.redirect_stderr(io.StringIO()):
        runtime = import_package("executorch.runtime").Runtime.get()
        import_package("executorch.extension.pybindings.portable_lib")._unsafe_reset_threadpool(1)
        method = runtime.load_program(path).load_method("forward")
        method.execute([torch.zeros(method.metadata.input_tensor_meta(0).sizes(), dtype=torch.uint8)])

    def run(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [method.execute([torch.from_numpy(pixels[i : i + 1])]) for i in range(len(pixels))]
        embeddings, logits = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
        return embeddings, logits

    return run


def compare_export(backbone: Backbone, path: Path, images: Sequence[np.ndarray]) -> Comparison:
    """Compare an exported file with its backbone on images [h, w, 3] of faces."""
    run, spec = open_exported(path), backbone.spec
    pixels = np.stack([resize_to_square(image, spec.input_px, spec.interpolation) for image in images])
    embeddings, logits = (np.concatenate(parts) for parts in zip(*(run(p[None]) for p in pixels), strict=True))
    expected, expected_logits = backbone.extract(images)
    products = (embeddings * expected).sum(axis=1)
    cosine = products / (np.linalg.norm(embeddings, axis=1) * np.linalg.norm(expected, axis=1))
    files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    return Comparison(
        megabytes=sum(file.stat().st_size for file in files) / 1e6,
        milliseconds=_milliseconds_per_call(lambda: run(pixels[:1])),
        original_milliseconds=_torch_milliseconds(backbone),
        cosine_min=float(cosine.min()),
        cosine_median=float(np.median(cosine)),
        same_class=float((logits.argmax(axis=1) == expected_logits.argmax(axis=1)).mean()),
    )


def _torch_milliseconds(backbone: Backbone) -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    size = backbone.spec.input_px
    x = torch.zeros(1, 3, size, size).contiguous(memory_format=torch.channels_last)
    try:
        with torch.inference_mode():
            return _milliseconds_per_call(lambda: backbone.network(x))
    finally:
        torch.set_num_threads(before)


def _milliseconds_per_call(call: Callable[[], object]) -> float:
    for _ in range(_WARM_UP_CALLS):
        call()
    seconds = []
    for _ in range(_TIMED_CALLS):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return 1000 * float(np.median(seconds))
