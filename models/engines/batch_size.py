"""Batch sizes that adapt to the memory of a GPU."""

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

logger = logging.getLogger(__name__)
R = TypeVar("R")


class BatchSize:
    """The number of items per batch, halved permanently whenever a batch does not fit into the GPU's memory."""

    def __init__(self, size: int, *, is_padded: bool) -> None:
        """``is_padded``: batches are padded to ``size`` items, so a shorter one needs as much memory as a full one."""
        self.size, self._is_padded = size, is_padded

    def run_batches(self, count: int, run: Callable[[slice], R]) -> Iterator[tuple[slice, R]]:
        """Yield (batch, ``run(batch)``) for consecutive slices of ``count`` items; retry in halves what does not fit.

        Raises:
            MemoryError: a single item does not fit.
        """
        first = 0
        while first < count:
            batch = slice(first, min(first + self.size, count))
            result = _run_if_it_fits(run, batch)
            if result is None:
                self._halve(self.size if self._is_padded else batch.stop - batch.start)
                continue
            yield batch, result
            first = batch.stop

    def _halve(self, tried: int) -> None:
        if tried == 1:
            raise MemoryError(
                "the GPU has too little memory for one image at a time; stop other programs that use it, or use another"
            )
        self.size = tried // 2
        logger.warning("the GPU has too little memory for %d images at a time; continuing with %d", tried, self.size)
        torch.cuda.empty_cache()


def _run_if_it_fits(run: Callable[[slice], R], batch: slice) -> R | None:
    # Return None instead of raising: a live exception would keep the tensors of the failed call in memory.
    try:
        return run(batch)
    except torch.cuda.OutOfMemoryError:
        return None
