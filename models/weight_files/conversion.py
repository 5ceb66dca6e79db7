"""Convert published weights to safetensors files for ``load_backbone``, without executing code of those files."""

import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from models.backbones.network import Backbone
from models.backbones.registry import UNKNOWN_IDENTITY, BackboneSpec, get_spec
from models.backbones.weights import METADATA_KEY
from models.weight_files.catalogue import BRANCH, ORIGIN, PublishedWeights
from models.weight_files.pickled_tensors import read_pickled_tensors

_DESCRIBED = ("class_names", "input_px", "mean", "std", "scale", "pad_type", "feature_layer", "feature_activation",
              "bn_eps")  # fmt: skip
# Blocks of MobileNet-v1 per stage of timm: a new stage begins where the resolution is halved.
_BLOCKS = [(stage, block) for stage, count in enumerate((1, 2, 2, 6, 2)) for block in range(count)]
_TIMM_NAMES = {"conv1": "conv_stem"} | {
    f"conv_{kind}_{number}": f"blocks.{stage}.{block}.conv_{kind}"
    for number, (stage, block) in enumerate(_BLOCKS, start=1)
    for kind in ("dw", "pw")
}
_KERAS_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def convert_weights(path: Path, published: PublishedWeights, *, verified: bool) -> bytes:
    """Return a published file as a safetensors file (bytes), after a check of every tensor against the network.

    Raises:
        ValueError: the registry has no network for the weights, or they do not fit; the message names the tensor.
    """
    if not published.is_convertible:
        raise ValueError(
            f"{path}: {published.name} is a network that affwild2 cannot run; its ONNX file runs in onnxruntime"
        )
    read = _from_keras if published.kind == "keras" else _from_pytorch
    tensors, spec = read(path, get_spec(published.backbone))
    try:
        Backbone(spec, tensors, "", device="cpu")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    origin = {
        "name": published.name,
        "repository": ORIGIN,
        "branch": BRANCH,
        "path": published.path,
        "git_blob_id": published.blob_id if verified else "unverified",
    }
    metadata = {METADATA_KEY: json.dumps(spec.metadata(_DESCRIBED)), "origin": json.dumps(origin)}
    return safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata)


def _from_pytorch(path: Path, spec: BackboneSpec) -> tuple[dict[str, Tensor], BackboneSpec]:
    """Read a PyTorch file. timm has kept the names of EfficientNet since 0.4; the class layer may be in a sequence."""
    tensors = {re.sub(r"^classifier\.0\.", "classifier.", name): t for name, t in read_pickled_tensors(path).items()}
    identities = spec.class_names == (UNKNOWN_IDENTITY,)
    if identities and "classifier.weight" in tensors:
        count = len(tensors["classifier.weight"])
        spec = spec.with_metadata({"class_names": [f"identity_{index:05d}" for index in range(count)]})
    elif identities:
        tensors |= {"classifier.weight": torch.zeros(1, spec.embedding_size), "classifier.bias": torch.zeros(1)}
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}, spec


def _from_keras(path: Path, spec: BackboneSpec) -> tuple[dict[str, Tensor], BackboneSpec]:
    """Read an HDF5 file with the MobileNet-v1 of ``keras.applications`` and two dense layers."""
    try:
        with h5py.File(path, "r") as file:
            config = json.loads(file.attrs.get("model_config", "{}"))
            group = file.get("model_weights", file)
            if group.file != file:
                raise ValueError("expected weights within the file, got a link to another one")
            arrays = _keras_arrays(group, path.stat().st_size)
        tensors: dict[str, Tensor] = {}
        for layer, weights in arrays.items():
            tensors |= _keras_layer(layer, weights)
        layers = {entry["config"].get("name"): entry["config"] for entry in config.get("config", {}).get("layers", [])}
        activation = layers.get("feats", {}).get("activation", spec.feature_activation)
        return tensors, spec.with_metadata({"feature_activation": activation})
    except Exception as error:
        # Damaged or hostile bytes can raise any exception; the caller only needs to know that the file is unusable.
        message = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"{path}: expected a Keras HDF5 file with a MobileNet, got: {message}") from error


def _keras_arrays(group: Any, file_bytes: int) -> dict[str, dict[str, np.ndarray]]:
    found: dict[str, dict[str, np.ndarray]] = {}
    left = file_bytes

    def visit(name: str, item: Any) -> None:
        nonlocal left
        if isinstance(item, h5py.Dataset):
            # A dataset may claim any size, be compressed a thousandfold, or refer to another file on this machine.
            left -= item.nbytes
            if left < 0 or item.external or item.is_virtual:
                raise ValueError(f"{name[:80]}: expected values within the file, got {item.nbytes:,} bytes or a link")
            layer, weight = name.split("/")[-2], name.split("/")[-1].split(":")[0]
            found.setdefault(layer, {})[weight] = np.asarray(item, np.float32)

    group.visititems(visit)
    return found


def _keras_layer(layer: str, weights: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Return the tensors of a layer by timm's names; kernels change from [h, w, in, out] to [out, in, h, w]."""
    dense = {"feats": "classifier.0", "emotion_preds": "classifier.2"}.get(layer)
    if dense:
        return {f"{dense}.weight": _tensor(weights["kernel"].T), f"{dense}.bias": _tensor(weights["bias"])}
    name = _TIMM_NAMES.get(layer.removesuffix("_bn"))
    if name is None:
        return {}
    if layer.endswith("_bn"):
        norm = name.replace("conv_stem", "bn1").replace("conv_dw", "bn1").replace("conv_pw", "bn2")
        named = {f"{norm}.{new}": _tensor(weights[old]) for old, new in _KERAS_NORM.items()}
        return named | {f"{norm}.num_batches_tracked": torch.tensor(0)}
    kernel = weights["depthwise_kernel" if "depthwise_kernel" in weights else "kernel"]
    is_depthwise = "depthwise_kernel" in weights or layer.startswith("conv_dw")
    return {f"{name}.weight": _tensor(kernel.transpose((2, 3, 0, 1) if is_depthwise else (3, 2, 0, 1)))}


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))
