"""The networks of temporal heads in torch: a TCN and a Transformer encoder, for fitting and for export."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from data_contracts.vocabulary import BranchName
from models.heads.head import OUTPUT_NAMES
from models.heads.recipes import TemporalLayers
from models.heads.temporal.layers import dilations, sinusoids, taper

TemporalKind = Literal["tcn", "transformer"]
# Added to the scores of positions without a face. Infinity would give NaN in windows without any face.
_NEVER = -1e9


class _Tcn(nn.Module):
    """Dilated convolutions with residual connections (Bai et al. 2018, arXiv 1803.01271, without causality)."""

    def __init__(self, width: int, layers: TemporalLayers, dropout: float) -> None:
        super().__init__()
        middle = layers.kernel // 2
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, width, layers.kernel, dilation=d, padding=d * middle) for d in dilations(layers.layers)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, present: Tensor, inside: Tensor) -> Tensor:
        values, mask = hidden.transpose(1, 2), inside[:, None].to(hidden.dtype)
        for convolution in self.convolutions:
            # The positions after the end of a shorter window are 0, like those beyond the ends of a sequence.
            values = values + self.dropout(torch.relu(convolution(values))) * mask
        return values.transpose(1, 2)


class _Transformer(nn.Module):
    """A Transformer encoder with normalisation before each block, and positions as sinusoids."""

    places: Tensor

    def __init__(self, width: int, layers: TemporalLayers, dropout: float) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            width, layers.heads, 2 * width, dropout, batch_first=True, norm_first=True, activation="relu"
        )
        self.encoder = nn.TransformerEncoder(layer, layers.layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.register_buffer("places", torch.from_numpy(sinusoids(layers.window, width)), persistent=False)

    def forward(self, hidden: Tensor, present: Tensor, inside: Tensor) -> Tensor:
        is_hidden = (~(present & inside)).to(hidden.dtype) * _NEVER
        values: Tensor = self.encoder(hidden + self.places[: hidden.shape[1]], src_key_padding_mask=is_hidden)
        return values


class TemporalNetwork(nn.Module):
    """A linear layer from the inputs, layers over time that all branches share, and an output layer per branch."""

    def __init__(
        self,
        kind: TemporalKind,
        inputs: int,
        width: int,
        layers: TemporalLayers,
        branches: tuple[BranchName, ...],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.project = nn.Linear(inputs, width)
        self.dropout = nn.Dropout(dropout)
        self.body = (_Tcn if kind == "tcn" else _Transformer)(width, layers, dropout)
        self.branches = branches
        self.outputs = nn.ModuleDict({branch: nn.Linear(width, len(OUTPUT_NAMES[branch])) for branch in branches})

    def forward(self, inputs: Tensor, present: Tensor, inside: Tensor) -> dict[BranchName, Tensor]:
        """Return the outputs of each branch before their activation, [B, W, K], of inputs [B, W, D].

        ``present``, ``inside``: bool [B, W], whether a position shows the face, and whether it is in the sequence.
        """
        hidden = self.dropout(torch.relu(self.project(inputs))) * (present & inside)[..., None]
        values = self.body(hidden, present, inside)
        return {branch: self.outputs[branch](values) for branch in self.branches}

    def load_branch(self, branch: BranchName, tensors: Mapping[str, Tensor]) -> None:
        """Take the tensors of one seed and branch of a head, for a network of this branch."""
        renamed = {}
        for name, values in tensors.items():
            is_body = not name.startswith(("project.", "output."))
            place = f"body.{name}" if is_body else name.replace("output.", f"outputs.{branch}.")
            renamed[place] = values
        self.load_state_dict(renamed)


def average_windows(
    network: TemporalNetwork, branch: BranchName, window: int, inputs: Tensor, present: Tensor
) -> Tensor:
    """Return outputs [P, K] of a branch for a sequence, as ``layers.run_transformer`` computes them.

    ``inputs`` [P, D], ``present`` bool [P]. All operations can be exported with any P.
    """
    half, count = window // 2, inputs.shape[0]
    blocks = (count + half - 1) // half

    def cut(values: Tensor) -> Tensor:
        """Return windows [blocks + 1, window, ...] that start at every half window, half a window before the first."""
        before, after = (torch.zeros_like(values[:1]).expand(size, -1) for size in (half, window))
        halves = torch.cat([before, values, after])[: (blocks + 2) * half].reshape(-1, half, values.shape[1])
        return torch.cat([halves[:-1], halves[1:]], dim=1)

    inside = cut(torch.ones_like(present[:, None], dtype=inputs.dtype))[..., 0] > 0
    shown = cut(present[:, None].to(inputs.dtype))[..., 0] > 0
    weight = torch.from_numpy(taper(window)).to(inputs.device)[:, None]
    outputs = network(cut(inputs), shown, inside)[branch] * weight
    summed: Tensor = outputs[1:, :half] + outputs[:-1, half:]
    return summed.reshape(-1, summed.shape[-1])[:count]
