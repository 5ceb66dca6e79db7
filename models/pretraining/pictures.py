"""Training pictures in batches: JPEG bytes in a memory-mapped file. They are varied in ``picture_variation``."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from models.backbones.weights import resize_to_square
from models.faces.crops import decode_jpeg


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


class _Squares(Dataset[tuple[Tensor, int, Tensor, np.float32]]):
    """Pictures squeezed to a square, as networks see faces."""

    def __init__(self, pictures: PictureSet, side_px: int) -> None:
        self._pictures, self._side_px = pictures, side_px

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor, np.float32]:
        pixels = torch.from_numpy(np.array(resize_to_square(self._pictures.picture(index), self._side_px)))
        pair = torch.from_numpy(self._pictures.valence_arousal[index])
        return pixels, int(self._pictures.classes[index]), pair, self._pictures.weights[index]


def training_batches(
    pictures: PictureSet, *, side_px: int, batch_size: int, seed: int, skip: int = 0, workers: int = 0
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Squares uint8 [b, side, side, 3], classes int64 [b], valence and arousal [b, 2], weights [b]; ``seed`` shuffles.

    ``skip``: so many batches were seen before. The last batch is left out if it has less than two pictures.
    """
    order = np.random.default_rng(seed).permutation(len(pictures))[skip * batch_size :].tolist()
    batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    batches = [batch for batch in batches if len(batch) > 1]
    yield from DataLoader(_Squares(pictures, side_px), batch_sampler=batches, num_workers=workers)


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
