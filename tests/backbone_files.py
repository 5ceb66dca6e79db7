"""Weights files of backbones for tests: the bundled network with other classes, and damaged ones."""

import json
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import safe_open

from data_contracts.details.backbones import BackboneDetails, PictureCoverage, PictureFigures, PictureSetSize
from data_contracts.store.bundles import Bundle, write_bundle
from data_contracts.store.store import Store
from models.backbones.registry import COMMON_5, get_spec
from models.backbones.weights import bundled_path
from tasks.backbones import WEIGHTS_FILE

WITH_AFFECT = (*COMMON_5, "valence", "arousal")


def backbone_bytes(class_names: tuple[str, ...] = COMMON_5, *, seed: int = 0) -> bytes:
    """Return the bundled network with a random class layer, as ``pretrain`` writes it."""
    with safe_open(bundled_path(get_spec("emotion_lite0")), "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        described = json.loads(file.metadata()["affwild2"])
    random = np.random.default_rng(seed)
    tensors["classifier.weight"] = (0.02 * random.normal(size=(len(class_names), 1280))).astype(np.float32)
    tensors["classifier.bias"] = np.zeros(len(class_names), np.float32)
    metadata = {"affwild2": json.dumps(described | {"class_names": class_names})}
    return safetensors.numpy.save(tensors, metadata)


def write_trained_backbone(store: Store, name: str, class_names: tuple[str, ...], *, seed: int = 0) -> Bundle:
    """Write a backbone into a store, as ``pretrain`` does."""
    size = PictureSetSize(pictures=0, people=0)
    coverage = PictureCoverage(status={}, train=size, validation=size, train_pictures_per_class={}, too_rare={})
    details = BackboneDetails(coverage=coverage, figures=PictureFigures(), kept_epoch=1)
    files = {WEIGHTS_FILE: backbone_bytes(class_names, seed=seed)}
    return write_bundle(store, f"backbones/{name}", files, fingerprint=name, details=details)


def damaged_files(folder: Path) -> dict[str, Path]:
    """Write files that no network can load; return the beginning of the expected message -> file."""
    folder.mkdir(exist_ok=True)
    good = backbone_bytes()
    tensors = safetensors.numpy.load(good)
    name = "conv_stem.weight"
    contents = {
        "expected a complete safetensors file with weights, got": good[: len(good) // 2],
        "safetensors file": b"not a safetensors file",
        "expected tensor": safetensors.numpy.save(tensors | {name: tensors[name][:, :1]}),
        "expected finite weights, got NaN or infinity in tensor": safetensors.numpy.save(
            tensors | {name: np.full_like(tensors[name], np.nan)}
        ),
    }
    found = {}
    for number, (message, content) in enumerate(contents.items()):
        found[message] = folder / f"damaged{number}.safetensors"
        found[message].write_bytes(content)
    found["No such file"] = folder / "missing.safetensors"
    return found
