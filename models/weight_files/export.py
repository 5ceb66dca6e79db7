"""Backbones as files for devices: ONNX (also in 8 bits), OpenVINO, ExecuTorch. Normalisation is inside the network.

Needs the extra ``export``. What runs the files, to compare them with the original, is in ``exported``.
"""

import contextlib
import hashlib
import importlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from models.backbones.network import Backbone, WholeNetwork
from models.backbones.weights import resize_to_square

ExportFormat = Literal["onnx", "onnx-int8", "openvino", "executorch"]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
_SUFFIX: dict[ExportFormat, str] = {
    "onnx": ".onnx",
    "onnx-int8": ".int8.onnx",
    "openvino": ".xml",
    "executorch": ".pte",
}
_OPSET = 18


def export_backbone(
    backbone: Backbone, file_format: ExportFormat, out: Path, *, calibration: list[np.ndarray] | None = None
) -> Path:
    """Write the network, and beside it ``<file>.preprocessing.json``, which says how to use it.

    Input ``pixels`` uint8 [n, px, px, 3], red, green, blue; outputs ``embeddings`` [n, D] and ``logits`` [n, C]. With
    ``executorch`` n is 1, and layers run in XNNPACK, the library for processors of phones.
    ``calibration``: pictures of faces, for ``onnx-int8`` only.

    Raises:
        ValueError: no such format, a package of the extra is missing, or no pictures to calibrate on.
    """
    if file_format not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {file_format!r}")
    if file_format == "onnx-int8" and not calibration:
        raise ValueError("onnx-int8: expected pictures of faces to calibrate on, got none")
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{backbone.spec.name}{_SUFFIX[file_format]}"
    with tempfile.TemporaryDirectory(dir=out, prefix=".unfinished-") as scratch:
        plain, made = Path(scratch) / "plain.onnx", Path(scratch) / target.name
        if file_format == "executorch":
            _write_executorch(backbone, made)
        else:
            _write_onnx(backbone, plain)
        if file_format == "onnx":
            made = plain
        elif file_format == "onnx-int8":
            _quantize(plain, made, backbone, calibration or [])
        elif file_format == "openvino":
            openvino = need_package("openvino")
            openvino.save_model(openvino.convert_model(str(plain)), str(made), compress_to_fp16=True)
        described = json.dumps(_description(backbone, made, target.name), indent=1) + "\n"
        (Path(scratch) / "preprocessing.json").write_text(described)
        if file_format == "openvino":
            os.replace(made.with_suffix(".bin"), target.with_suffix(".bin"))
        os.replace(Path(scratch) / "preprocessing.json", out / f"{target.name}.preprocessing.json")
        os.replace(made, target)
    return target


def _write_onnx(backbone: Backbone, path: Path) -> None:
    need_package("onnx")
    module = WholeNetwork(backbone).eval()
    example = torch.zeros(2, backbone.spec.input_px, backbone.spec.input_px, 3, dtype=torch.uint8)
    with quiet(), torch.inference_mode():
        torch.onnx.export(
            module,
            (example,),
            str(path),
            input_names=["pixels"],
            output_names=["embeddings", "logits"],
            dynamic_axes={name: {0: "n"} for name in ("pixels", "embeddings", "logits")},
            opset_version=_OPSET,
            dynamo=False,
        )


def _write_executorch(backbone: Backbone, path: Path) -> None:
    size = backbone.spec.input_px
    with quiet(), torch.no_grad():
        exir = need_package("executorch.exir")
        xnnpack = need_package("executorch.backends.xnnpack.partition.xnnpack_partitioner")
        program = torch.export.export(
            WholeNetwork(backbone).eval(), (torch.zeros(1, size, size, 3, dtype=torch.uint8),)
        )
        lowered = exir.to_edge_transform_and_lower(program, partitioner=[xnnpack.XnnpackPartitioner()])
        path.write_bytes(lowered.to_executorch().buffer)


def _quantize(plain: Path, target: Path, backbone: Backbone, calibration: list[np.ndarray]) -> None:
    """Weights per channel and activations in 8 bits, ranges from the calibration pictures."""
    quantization = need_package("onnxruntime.quantization")
    shapes = need_package("onnxruntime.quantization.shape_inference")
    prepared = target.with_suffix(".prepared.onnx")
    size = backbone.spec.input_px

    class Pictures(quantization.CalibrationDataReader):  # type: ignore[name-defined]
        def __init__(self) -> None:
            self._pictures: Iterator[np.ndarray] = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            picture = next(self._pictures, None)
            return None if picture is None else {"pixels": resize_to_square(picture, size)[None]}

    with quiet():
        shapes.quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(target),
            Pictures(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            # Normalisation stays exact. With the clip of a ReLU6 left out, ranges would be those before it, and coarse.
            op_types_to_quantize=["Conv", "Clip", "Gemm", "MatMul", "Add"],
        )


def _description(backbone: Backbone, made: Path, name: str) -> dict[str, Any]:
    spec, count = backbone.spec, 1 if made.suffix == ".pte" else "n"
    files = [made, made.with_suffix(".bin")] if made.suffix == ".xml" else [made]
    return {
        "file": name,
        "sha256": {f"{name.rsplit('.', 1)[0]}{f.suffix}": hashlib.sha256(f.read_bytes()).hexdigest() for f in files},
        "weights_sha256": backbone.weights_digest,
        "input": {
            "name": "pixels",
            "type": "uint8",
            "shape": [count, spec.input_px, spec.input_px, 3],
            "channel_order": "RGB",
            "resize": f"{spec.interpolation} with antialiasing, straight to the square, shape not kept",
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


def need_package(package: str) -> Any:
    """A package of the extra ``export``.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(f"expected the package {package}, found none; install affwild2[export]") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' notes about themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
