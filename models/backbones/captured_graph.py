"""A function of tensors, recorded once on a GPU and replayed: no launch of a kernel waits for Python."""

from collections.abc import Callable

import torch
from torch import Tensor

_WARM_UP_CALLS = 3


class CapturedGraph:
    """The function for inputs of fixed shapes. On a processor it is called as it is."""

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], *examples: Tensor) -> None:
        """``examples``: inputs of the shapes and types that will come; the function must not wait for the device.

        Raises:
            torch.cuda.OutOfMemoryError: what it needs does not fit.
        """
        self._function, self._graph = function, None
        if examples[0].device.type != "cuda":
            return
        self._inputs = [example.clone() for example in examples]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_CALLS):
                function(*self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._outputs = function(*self._inputs)
        self._graph = graph

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What the function gives; valid until the next call."""
        if self._graph is None:
            return self._function(*inputs)
        for place, value in zip(self._inputs, inputs, strict=True):
            place.copy_(value, non_blocking=True)
        self._graph.replay()
        return self._outputs
