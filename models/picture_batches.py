"""Training pictures in batches: JPEG bytes in a memory-mapped file, decoded and varied anew in every epoch."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from models.backbone_specs import BackboneSpec
from models.crops import decode_jpeg
from models.pretraining_recipes import PretrainingRecipe

# As the published 256 px before parts of 224 px are cut.
_LARGER = 256 / 224


@dataclass(frozen=True, eq=False, repr=False)
class PictureSet:
    """Labelled crops of faces.

    Attributes:
        jpeg: uint8, all JPEG files one after the other; usually memory-mapped.
        offsets: int64 [n + 1]; picture i is ``jpeg[offsets[i]:offsets[i + 1]]``.
        classes: int64 [n], -1 where unlabelled.
        valence_arousal: float32 [n, 2], NaN where unlabelled.
        weights: float32 [n], how much each counts for the classes.
    """

    jpeg: np.ndarray
    offsets: np.ndarray
    classes: np.ndarray
    valence_arousal: np.ndarray
    weights: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.offsets) - 1 == len(self.classes) == len(self.valence_arousal) == len(self.weights):
            raise ValueError(f"expected labels for {len(self.offsets) - 1} pictures, got {len(self.classes)}")

    def __len__(self) -> int:
        return len(self.classes)

    def picture(self, index: int) -> np.ndarray:
        """RGB uint8 [h, w, 3]."""
        return decode_jpeg(self.jpeg[self.offsets[index] : self.offsets[index + 1]].tobytes())


def training_transform(spec: BackboneSpec, recipe: PretrainingRecipe) -> v2.Transform:
    """Picture to input: a random part, mirrored or not, in varied light, at the network's size."""
    size, steps = (spec.input_px, spec.input_px), list[v2.Transform]()
    if recipe.smallest_crop < 1:
        # Squeezed to a square first, as the network sees faces; a part of that is squeezed no more than a little.
        larger = round(spec.input_px * _LARGER)
        steps.append(v2.Resize((larger, larger), antialias=True))
        steps.append(v2.RandomResizedCrop(size, scale=(recipe.smallest_crop, 1.0), ratio=(0.85, 1.18), antialias=True))
    else:
        steps.append(v2.Resize(size, antialias=True))
    if recipe.flip:
        steps.append(v2.RandomHorizontalFlip())
    if recipe.jitter > 0:
        steps.append(v2.ColorJitter(recipe.jitter, recipe.jitter, recipe.jitter))
    if recipe.blur > 0:
        steps.append(v2.RandomApply([v2.GaussianBlur(5, (0.1, 2.0))], recipe.blur))
    return v2.Compose(steps)


class _Varied(Dataset[tuple[Tensor, int, Tensor, np.float32]]):
    """Pictures of one epoch, each varied by a seed of its own: resuming repeats nothing and skips nothing."""

    def __init__(self, pictures: PictureSet, transform: v2.Transform, *, seed: int) -> None:
        self._pictures, self._transform, self._seed = pictures, transform, seed

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor, np.float32]:
        image = Image.fromarray(self._pictures.picture(index))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed * 1_000_003 + index)
            pixels = np.array(self._transform(image))
        pair = torch.from_numpy(self._pictures.valence_arousal[index])
        return torch.from_numpy(pixels), int(self._pictures.classes[index]), pair, self._pictures.weights[index]


def training_batches(
    pictures: PictureSet, *, transform: v2.Transform, batch_size: int, seed: int, skip: int = 0, workers: int = 0
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Pixels uint8 [b, px, px, 3], classes int64 [b], valence and arousal [b, 2], weights [b]; ``seed`` shuffles.

    ``skip``: so many batches were seen before. The last batch is left out if it has less than two pictures.
    """
    order = np.random.default_rng(seed).permutation(len(pictures))[skip * batch_size :].tolist()
    options: dict[str, Any] = {"num_workers": workers, "persistent_workers": False}
    batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    batches = [batch for batch in batches if len(batch) > 1]
    yield from DataLoader(_Varied(pictures, transform, seed=seed), batch_sampler=batches, **options)


class PictureFile:
    """Writes crops into the files that a ``PictureSet`` maps."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "pictures.bin"
        self._file = open(self._path, "wb")  # noqa: SIM115
        self._offsets = [0]

    def add(self, jpeg: bytes) -> None:
        """Append one picture."""
        self._file.write(jpeg)
        self._offsets.append(self._offsets[-1] + len(jpeg))

    def finish(self, classes: np.ndarray, valence_arousal: np.ndarray, weights: np.ndarray) -> PictureSet:
        """The set of all pictures that were added."""
        self._file.close()
        size = os.stat(self._path).st_size
        jpeg = np.memmap(self._path, np.uint8, "r") if size else np.empty(0, np.uint8)
        return PictureSet(jpeg, np.array(self._offsets, np.int64), classes, valence_arousal, weights)
