"""Labelled training images: files of JPEG bytes, batches, and the loss of a batch."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from models.backbones.registry import Interpolation
from models.backbones.resizing import resize_to_square
from models.faces.crops import decode_jpeg
from models.heads.losses import ccc_loss, smoothed_cross_entropy
from models.pretraining.recipes import PretrainingRecipe


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Labelled crops of faces.

    Attributes:
        jpeg: uint8, all JPEG files concatenated; usually memory-mapped.
        offsets: int64 [n + 1]; image i is ``jpeg[offsets[i]:offsets[i + 1]]``.
        classes: int64 [n], -1 if unlabelled.
        valence_arousal: float32 [n, 2], NaN if unlabelled.
        weights: float32 [n], weight of each image in the loss of the classes.
    """

    jpeg: np.ndarray
    offsets: np.ndarray
    classes: np.ndarray
    valence_arousal: np.ndarray
    weights: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.offsets) - 1 == len(self.classes) == len(self.valence_arousal) == len(self.weights):
            raise ValueError(f"expected labels for {len(self.offsets) - 1} images, got {len(self.classes)}")

    def __len__(self) -> int:
        return len(self.classes)

    def read(self, index: int) -> np.ndarray:
        """Decode one image to RGB uint8 [h, w, 3]."""
        return decode_jpeg(self.jpeg[self.offsets[index] : self.offsets[index + 1]].tobytes())


class _Squares(Dataset[tuple[Tensor, int, Tensor, np.float32]]):
    """Images resized to squares, without keeping their aspect ratio."""

    def __init__(self, images: ImageSet, side_px: int, interpolation: Interpolation) -> None:
        self._images, self._side_px, self._interpolation = images, side_px, interpolation

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor, np.float32]:
        square = resize_to_square(self._images.read(index), self._side_px, self._interpolation)
        pixels = torch.from_numpy(np.array(square))
        pair = torch.from_numpy(self._images.valence_arousal[index])
        return pixels, int(self._images.classes[index]), pair, self._images.weights[index]


def training_batches(
    images: ImageSet,
    *,
    side_px: int,
    interpolation: Interpolation,
    batch_size: int,
    seed: int,
    skip: int = 0,
    workers: int = 0,
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Yield squares uint8 [b, side, side, 3], classes int64 [b], valence and arousal [b, 2], weights [b].

    ``seed`` determines the order. ``skip``: number of batches to skip. A last batch of one image is left out.
    """
    order = np.random.default_rng(seed).permutation(len(images))[skip * batch_size :].tolist()
    batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    batches = [batch for batch in batches if len(batch) > 1]
    yield from DataLoader(_Squares(images, side_px, interpolation), batch_sampler=batches, num_workers=workers)


class ImageFile:
    """Writes crops to the file that an ``ImageSet`` maps into memory."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "images.bin"
        self._file = open(self._path, "wb")  # noqa: SIM115
        self._offsets = [0]

    def add(self, jpeg: bytes) -> None:
        """Append one image."""
        self._file.write(jpeg)
        self._offsets.append(self._offsets[-1] + len(jpeg))

    def finish(self, classes: np.ndarray, valence_arousal: np.ndarray, weights: np.ndarray) -> ImageSet:
        """Close the file and return the set of all images in it."""
        self._file.close()
        size = os.stat(self._path).st_size
        jpeg = np.memmap(self._path, np.uint8, "r") if size else np.empty(0, np.uint8)
        return ImageSet(jpeg, np.array(self._offsets, np.int64), classes, valence_arousal, weights)


@dataclass
class Batch:
    """Augmented images float32 [n, px, px, 3] with their labels.

    ``other_classes``: classes of the images that are blended in. ``share``: weight of each image itself in the blend.
    """

    pixels: Tensor
    classes: Tensor
    other_classes: Tensor
    affect: Tensor
    weights: Tensor
    share: float = 1.0

    def blend(self, mixing: float, random: np.random.Generator) -> "Batch":
        """Blend each image with another image of the batch."""
        share = float(random.beta(mixing, mixing))
        other = torch.from_numpy(random.permutation(len(self.pixels))).to(self.pixels.device)
        return Batch(
            share * self.pixels + (1 - share) * self.pixels[other],
            self.classes,
            self.classes[other],
            self.affect,
            share * self.weights + (1 - share) * self.weights[other],
            share,
        )


def batch_loss(outputs: Tensor, batch: Batch, recipe: PretrainingRecipe, *, weights: Tensor, prior: Tensor) -> Tensor:
    """Return the loss of outputs [n, C] or, with valence and arousal, [n, C + 2]; rows without a label do not count.

    ``weights`` [C]: weights of the classes. ``prior`` [C]: values that are added to their logits.
    """
    count, total = len(weights), outputs.sum() * 0.0
    for classes, share in ((batch.classes, batch.share), (batch.other_classes, 1 - batch.share)):
        known = classes >= 0
        if share > 0 and known.any():
            total = total + share * smoothed_cross_entropy(
                outputs[known, :count] + prior,
                classes[known],
                weights=weights,
                rows=batch.weights[known],
                smoothing=recipe.label_smoothing,
            )
    if recipe.valence_arousal:
        rated = ~torch.isnan(batch.affect).any(dim=1)
        if rated.sum() > 1:
            # (1 - CCC_V) / 2 + (1 - CCC_A) / 2 is 1 - (CCC_V + CCC_A) / 2.
            total = total + ccc_loss(outputs[rated, count:], batch.affect[rated])
    return total
