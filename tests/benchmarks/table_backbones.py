"""Compare backbones like the paper's table for a phone: size, and milliseconds per face on one thread.

Savchenko 2022 (arXiv 2203.13436) compares MobileNet-v1, EfficientNet-B0 and B2; this table adds Lite0 at the size of
the bundled weights. Weights that are not bundled are random, because speed does not depend on them.
"""

import tempfile
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from models.backbones.network import build_network, load_backbone
from models.backbones.registry import get_spec
from models.weight_files.export import compare_export, export_backbone

NAMES = ("mobilenet_v1", "tf_efficientnet_b0", "tf_efficientnet_b2", "efficientnet_lite0", "emotion_lite0")


def main() -> None:
    torch.manual_seed(0)
    faces = [np.random.default_rng(0).integers(0, 255, (160, 130, 3), np.uint8)] * 4
    print("ms per face: one at a time, one thread, median; cosine: ONNX embeddings to torch's")
    header = (
        "backbone",
        "px",
        "parameters",
        "MB f32",
        "MB f16",
        "torch ms",
        "ONNX ms",
        "OpenVINO ms",
        "ExecuTorch",
        "cosine",
    )
    print("".join(f"{name:>20}" if name == "backbone" else f"{name:>12}" for name in header))
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            spec = get_spec(name)
            weights = None
            if not spec.bundled:
                weights = Path(folder) / f"{name}.safetensors"
                safetensors.torch.save_file(build_network(spec).state_dict(), weights)
            backbone = load_backbone(name, weights=weights)
            count = sum(parameter.numel() for parameter in backbone.network.parameters())
            onnx = compare_export(backbone, export_backbone(backbone, "onnx", Path(folder)), faces)
            openvino = compare_export(backbone, export_backbone(backbone, "openvino", Path(folder)), faces)
            executorch = compare_export(backbone, export_backbone(backbone, "executorch", Path(folder)), faces)
            print(
                f"{name:>20}{spec.input_px:12d}{count:12,}{count * 4e-6:12.1f}{count * 2e-6:12.1f}"
                f"{onnx.original_milliseconds:12.1f}{onnx.milliseconds:12.1f}{openvino.milliseconds:12.1f}"
                f"{executorch.milliseconds:12.1f}"
                f"{onnx.cosine_min:12.6f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
