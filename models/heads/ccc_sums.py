"""What a CCC and its gradient need of all labelled rows: sums that one pass over blocks of rows collects."""

import numpy as np
import torch

from models.heads.feature_rows import RowReader


class WideInputs:
    """Rows of many inputs, read and multiplied block by block in float32, so that they never lie in memory whole."""

    def __init__(self, reader: RowReader, index: np.ndarray, labels: np.ndarray) -> None:
        """Rows ``index`` of the reader; ``labels`` float32 of all its rows, [N, 2]."""
        self._reader, self._index, self._labels = reader, index, labels

    def __len__(self) -> int:
        return len(self._index)

    def sums(self, weights: np.ndarray, *, slopes: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Sums over rows of v, v^2 and v y, float64 [3, 2], and of (1, v, y) dv/d(weights and bias), [6, width + 1].

        v is tanh of the output, ``weights`` float64 [2, width + 1] with the biases last. Without ``slopes`` the
        second array is 0.
        """
        parameters = torch.from_numpy(weights)
        matrix = parameters[:, :-1].t().float()
        found = torch.zeros(3, 2, dtype=torch.float64)
        gradients = torch.zeros(6, weights.shape[1], dtype=torch.float64)
        for index, inputs in self._reader.blocks(self._index):
            value = torch.tanh(torch.mm(inputs, matrix).double() + parameters[:, -1])
            target = torch.from_numpy(self._labels[index]).double()
            found += torch.stack([value.sum(0), value.square().sum(0), (value * target).sum(0)])
            if slopes:
                slope = 1 - value.square()
                columns = torch.cat([slope, slope * value, slope * target], dim=1)
                gradients[:, :-1] += torch.mm(columns.t().float(), inputs).double()
                gradients[:, -1] += columns.sum(0)
        return found.numpy(), gradients.numpy()
