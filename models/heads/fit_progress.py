"""Progress of fitting a head: seed, epoch, rows per second and time left."""

import time

from models.engines.progress import format_duration, report_progress
from models.heads.recipes import HeadRecipe, TaskRecipe


class FitProgress:
    """Counts the seeds, parts, epochs and rows of the fit of one head, and reports them (``report_progress``)."""

    def __init__(self, recipe: TaskRecipe) -> None:
        self._recipe = recipe
        self._part_seconds: dict[int, float] = {}
        self.start_part(0, 0, recipe.parts[0])

    def start_part(self, seed: int, number: int, part: HeadRecipe) -> None:
        """Start the part of this number with the seed of this number, both from 0."""
        self._seed, self._number, self._part = seed, number, part
        self._ended_epochs, self._rows, self._rows_per_epoch = 0, 0, 0
        self._started = self._epochs_started = time.monotonic()

    def start_epochs(self) -> None:
        """Start the clock of the rate, after the preparations of a part."""
        self._epochs_started = time.monotonic()

    def add_rows(self, count: int) -> None:
        """Count the training rows of a batch."""
        self._rows += count
        report_progress("{}", self)

    def end_epoch(self) -> None:
        """Count an epoch, after its validation."""
        self._ended_epochs += 1
        self._rows_per_epoch = self._rows // self._ended_epochs

    def end_part(self) -> None:
        """Remember how long the part took, for the time that it takes with other seeds."""
        self._part_seconds[self._number] = time.monotonic() - self._started

    def __str__(self) -> str:
        """Return one line, such as ``seed 2 of 3, epoch 4 of at most 40, 158,000 rows/s, at most 3 min left``."""
        part = self._part
        at_most = "at most " if part.patience else ""
        words = [f"{'+'.join(part.branches)}"] if len(self._recipe.parts) > 1 else []
        words += [f"seed {self._seed + 1} of {self._recipe.seeds}"] if self._recipe.seeds > 1 else []
        words += [f"epoch {min(self._ended_epochs + 1, part.epochs)} of {at_most}{part.epochs}"]
        seconds = time.monotonic() - self._epochs_started
        if seconds > 0 and self._rows:
            words.append(f"{self._rows / seconds:,.0f} rows/s")
        if self._ended_epochs:
            words.append(f"{at_most or 'about '}{format_duration(self._seconds_left(seconds))} left")
        return ", ".join(words)

    def _seconds_left(self, seconds: float) -> float:
        epoch_seconds = seconds * self._rows_per_epoch / self._rows
        left = max(self._part.epochs * epoch_seconds - seconds, 0.0)
        parts = self._recipe.parts
        for later in range(self._seed * len(parts) + self._number + 1, self._recipe.seeds * len(parts)):
            number = later % len(parts)
            left += self._part_seconds.get(number, parts[number].epochs * epoch_seconds)
        return left
