"""Fit temporal heads by Adam on windows of the subjects' sequences, in random order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from data_contracts.vocabulary import BranchName
from models.engines.progress import report_progress
from models.heads.fitting import fit_epochs
from models.heads.head import FitSettings, FittedPart
from models.heads.losses import BranchLosses
from models.heads.recipes import HeadRecipe, TemporalLayers
from models.heads.rows import BLOCK_ROWS, moments_of
from models.heads.sequences import Labels, SubjectSequence, is_labelled
from models.heads.temporal.layers import width_of
from models.heads.temporal.networks import TemporalKind, TemporalNetwork
from models.heads.temporal.positions import Positions

# A window of a sequence: number of the sequence, first position, and the position after the last one.
_Window = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class _Batch:
    """Windows of one length: inputs [B, W, D], masks bool [B, W], and the labels of the counted positions."""

    inputs: Tensor
    present: Tensor
    inside: Tensor
    counted: Tensor
    labels: Labels


class _Windows:
    """Reads windows of sequences. A position is counted if its frame has a face and a label, once per frame."""

    def __init__(self, sequences: Sequence[SubjectSequence], recipe: HeadRecipe, device: str) -> None:
        self._sequences, self._recipe, self._device = sequences, recipe, torch.device(device)
        self._positions = [Positions.of(one.seconds) for one in sequences]
        self._counted = [_counted(*pair, recipe) for pair in zip(sequences, self._positions, strict=True)]

    @property
    def rows(self) -> int:
        """Number of counted positions."""
        return sum(int(counted.sum()) for counted in self._counted)

    def labels(self) -> dict[BranchName, np.ndarray]:
        """Return the labels of all counted positions."""
        parts = [self._labels_of(number, slice(None)) for number in range(len(self._sequences))]
        return {branch: np.concatenate([part[branch] for part in parts]) for branch in self._recipe.branches}

    def _labels_of(self, number: int, window: slice) -> dict[BranchName, np.ndarray]:
        frames = self._positions[number].frames[window][self._counted[number][window]]
        return {branch: self._sequences[number].labels[branch][frames] for branch in self._recipe.branches}

    def counted_inputs(self) -> Iterator[Tensor]:
        """Yield the inputs of all counted positions in blocks."""
        done = 0
        for one, positions, counted in zip(self._sequences, self._positions, self._counted, strict=True):
            frames = positions.frames[counted]
            for first in range(0, len(frames), BLOCK_ROWS):
                report_progress("measuring the inputs: {:,} of {:,} rows", done + first, self.rows)
                yield self._read(one, frames[first : first + BLOCK_ROWS])
            done += len(frames)

    def _read(self, one: SubjectSequence, frames: np.ndarray | slice) -> Tensor:
        # float16 to float32 by torch's copy: numpy's conversion is many times slower.
        if self._recipe.features == "embeddings":
            return torch.from_numpy(np.array(one.embeddings[frames])).float()
        return torch.from_numpy(np.array(one[frames].inputs(self._recipe.features, self._recipe.scores)))

    def tile(self, random: np.random.Generator | None) -> list[_Window]:
        """Return windows that cover every counted position once, with random starts and in random order if asked."""
        length, windows = (self._recipe.temporal or TemporalLayers()).window, list[_Window]()
        for number, counted in enumerate(self._counted):
            first = -int(random.integers(length)) if random else 0
            for start in range(first, len(counted), length):
                start, stop = max(start, 0), min(start + length, len(counted))
                if counted[start:stop].any():
                    windows.append((number, start, stop))
        return [windows[at] for at in random.permutation(len(windows))] if random else windows

    def epoch(self, random: np.random.Generator) -> list[_Window]:
        """Return the windows of one epoch: at most about ``epoch_rows`` counted positions, in random order."""
        windows, limit = self.tile(random), self._recipe.epoch_rows
        counts = np.cumsum([self._counted[number][start:stop].sum() for number, start, stop in windows])
        return windows[: int(np.searchsorted(counts, limit)) + 1] if limit else windows

    def batches(self, windows: list[_Window], mean: Tensor | None, deviation: Tensor | None) -> Iterator[_Batch]:
        """Yield the windows in batches of about ``batch_size`` positions."""
        size = max(self._recipe.batch_size // (self._recipe.temporal or TemporalLayers()).window, 1)
        for first in range(0, len(windows), size):
            yield self._batch(windows[first : first + size], mean, deviation)

    def _batch(self, windows: list[_Window], mean: Tensor | None, deviation: Tensor | None) -> _Batch:
        longest = max(stop - start for _, start, stop in windows)
        width = self._sequences[0].width(self._recipe.features)
        inputs = torch.zeros(len(windows), longest, width)
        masks = torch.zeros(3, len(windows), longest, dtype=torch.bool)
        labels = []
        for row, (number, start, stop) in enumerate(windows):
            one, positions, window = self._sequences[number], self._positions[number], slice(start, stop)
            frames = window if positions.is_identity else positions.frames[window]
            inputs[row, : stop - start] = self._read(one, frames)
            masks[0, row, : stop - start] = torch.from_numpy(np.array(one.present[frames]))
            masks[1, row, : stop - start] = True
            masks[2, row, : stop - start] = torch.from_numpy(self._counted[number][window])
            labels.append(self._labels_of(number, window))
        inputs, masks = inputs.to(self._device), masks.to(self._device)
        if mean is not None and deviation is not None:
            inputs.sub_(mean).div_(deviation)
        joined = {branch: np.concatenate([part[branch] for part in labels]) for branch in self._recipe.branches}
        return _Batch(inputs, masks[0], masks[1], masks[2], joined)


def _counted(one: SubjectSequence, positions: Positions, recipe: HeadRecipe) -> np.ndarray:
    known = is_labelled(one.labels, recipe.branches, drop_partial_units=recipe.drop_partial_units) & one.present
    is_first = np.diff(positions.frames, prepend=-1) > 0
    counted: np.ndarray = known[positions.frames] & is_first
    return counted


def fit_temporal(
    train: Sequence[SubjectSequence],
    validation: Sequence[SubjectSequence] | None,
    recipe: HeadRecipe,
    settings: FitSettings,
) -> FittedPart:
    """See ``Head.fit_part``. An epoch of validation tiles the sequences with windows; prediction lets them overlap."""
    data = _Windows(train, recipe, settings.device)
    if not data.rows:
        raise ValueError(f"{'+'.join(recipe.branches)}: expected labelled training rows, found none")
    moments = moments_of(data.counted_inputs()) if recipe.standardize else (None, None)
    mean, deviation = (None if one is None else one.to(settings.device) for one in moments)
    torch.manual_seed(settings.seed)
    random = np.random.default_rng(settings.seed)
    network = make_network(recipe, train[0].width(recipe.features)).to(settings.device)

    def run(batch: _Batch) -> tuple[dict[BranchName, Tensor], Labels]:
        with torch.autocast(batch.inputs.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            outputs = network(batch.inputs, batch.present, batch.inside)
        return {branch: values[batch.counted].float() for branch, values in outputs.items()}, batch.labels

    validate = None
    if validation is not None:
        checked = _Windows(validation, recipe, settings.device)
        if not checked.rows:
            raise ValueError(f"{'+'.join(recipe.branches)}: expected labelled validation rows, found none")
        validate = lambda: checked.batches(checked.tile(None), mean, deviation)  # noqa: E731
    fitted = fit_epochs(
        network,
        recipe,
        BranchLosses(recipe, data.labels(), device=settings.device),
        run=run,
        train=lambda: data.batches(data.epoch(random), mean, deviation),
        validation=validate,
        progress=settings.progress,
    )
    return replace(fitted, tensors=_tensors(fitted.tensors, recipe, mean, deviation))


def make_network(recipe: HeadRecipe, inputs: int) -> TemporalNetwork:
    """Return the network of a recipe with random weights.

    Raises:
        ValueError: there is not exactly one hidden size.
    """
    layers, kind = recipe.temporal or TemporalLayers(), cast(TemporalKind, recipe.kind)
    return TemporalNetwork(kind, inputs, width_of(recipe), layers, recipe.branches, recipe.dropout)


def _tensors(
    fitted: dict[str, np.ndarray], recipe: HeadRecipe, mean: Tensor | None, deviation: Tensor | None
) -> dict[str, np.ndarray]:
    """Return the tensors of each branch, a copy of those that are shared, with the standardisation folded in."""
    shared = {name.removeprefix("body."): values for name, values in fitted.items() if not name.startswith("outputs.")}
    if mean is not None and deviation is not None:
        weight = shared["project.weight"].astype(np.float64) / deviation.cpu().double().numpy()
        bias = shared["project.bias"].astype(np.float64) - weight @ mean.cpu().double().numpy()
        shared |= {"project.weight": weight.astype(np.float32), "project.bias": bias.astype(np.float32)}
    tensors: dict[str, np.ndarray] = {}
    for branch in recipe.branches:
        own = {f"output.{part}": fitted[f"outputs.{branch}.{part}"] for part in ("weight", "bias")}
        tensors |= {f"{branch}.{name}": values for name, values in (shared | own).items()}
    return tensors
