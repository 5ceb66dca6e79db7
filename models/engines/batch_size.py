"""How many pictures a network is given at a time where a GPU's memory decides it. What a network does is elsewhere."""

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

logger = logging.getLogger(__name__)
R = TypeVar("R")


class BatchSize:
    """So many items at a time; half as many, from then on, each time the GPU's memory does not suffice for them.

    ``filled_up``: a block of fewer items takes as much memory as a whole one.
    """

    def __init__(self, size: int, *, filled_up: bool) -> None:
        self.size, self._filled_up = size, filled_up

    def blocks(self, count: int, run: Callable[[slice], R]) -> Iterator[tuple[slice, R]]:
        """(block, ``run(block)``) for consecutive blocks of ``count`` items. What did not fit is run again in halves.

        Raises:
            MemoryError: there is not enough memory for one item.
        """
        first = 0
        while first < count:
            block = slice(first, min(first + self.size, count))
            result = _run_if_it_fits(run, block)
            if result is None:
                self._halve(self.size if self._filled_up else block.stop - block.start)
                continue
            yield block, result
            first = block.stop

    def _halve(self, tried: int) -> None:
        if tried == 1:
            raise MemoryError(
                "the GPU has not enough memory for one picture at a time; end what else runs on it, or take another"
            )
        self.size = tried // 2
        logger.warning("the GPU has not enough memory for %d pictures at a time; going on with %d", tried, self.size)
        torch.cuda.empty_cache()


def _run_if_it_fits(run: Callable[[slice], R], block: slice) -> R | None:
    # Left as an exception, it would keep the tensors of the failed try alive.
    try:
        return run(block)
    except torch.cuda.OutOfMemoryError:
        return None
