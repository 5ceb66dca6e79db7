"""Temporal heads: their outputs for a frame depend on the frames before and after it."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from data_contracts.vocabulary import BranchName
from models.heads.head import OUTPUT_NAMES, BranchConfig, FitSettings, FittedPart, Head, HeadConfig, take_tensors
from models.heads.recipes import HeadRecipe, TemporalLayers
from models.heads.sequences import SubjectSequence, input_width
from models.heads.temporal.layers import Weights, project, run_tcn, run_transformer, width_of
from models.heads.temporal.positions import Positions

Sequences = Sequence[SubjectSequence]
Shapes = dict[str, tuple[int, ...]]
# Frames whose inputs are converted at once: the features of a long video need not fit into memory.
_BLOCK_FRAMES = 4096
_HOW = (
    "x = embeddings, scores, or embeddings followed by scores, as 'features' says; for each seed s, with tensors "
    "'seed{{s}}.{{branch}}.NAME': h = ReLU(x @ project.weight.T + project.bias), 0 in frames without a face; h is "
    "taken at 30 positions per second, from the nearest frame; {body}; outputs = h @ output.weight.T + output.bias, "
    "interpolated linearly from positions to frames, then 'activation'; outputs are the mean over seeds"
)


class TemporalHead(Head[Sequences]):
    """A network over the positions of a sequence; ``hidden_units`` is its width."""

    works_on = "sequences"

    def __init__(self, config: HeadConfig, tensors: dict[str, np.ndarray]) -> None:
        """Make a head of ``seed0.expr.project.weight`` [width, inputs], ..., ``seed0.expr.output.weight`` [K, width].

        Raises:
            ValueError: a tensor is missing or does not have the shape that the configuration requires.
        """
        expected: Shapes = {}
        for seed in range(config.seeds):
            for branch, settings in config.branches.items():
                inputs = input_width(settings.features, config.embedding_size, config.logits_size)
                shapes = self._branch_shapes(settings, inputs, len(OUTPUT_NAMES[branch]))
                expected |= {f"seed{seed}.{branch}.{name}": shape for name, shape in shapes.items()}
        super().__init__(config, take_tensors(tensors, expected))

    @classmethod
    def _branch_shapes(cls, settings: BranchConfig, inputs: int, outputs: int) -> Shapes:
        width, layers = width_of(settings), settings.temporal or TemporalLayers()
        linear = {"project": (width, inputs), "output": (outputs, width)}
        shapes: Shapes = {f"{name}.weight": shape for name, shape in linear.items()}
        shapes |= {f"{name}.bias": shape[:1] for name, shape in linear.items()}
        return shapes | cls._body_shapes(width, layers)

    @classmethod
    @abstractmethod
    def _body_shapes(cls, width: int, layers: TemporalLayers) -> Shapes:
        """Return the shapes of the tensors between the projection and the output."""

    @classmethod
    def check_recipe(cls, recipe: HeadRecipe) -> None:
        """See ``Head.check_recipe``."""
        cls._body_shapes(width_of(recipe), recipe.temporal or TemporalLayers())

    @classmethod
    def fit_part(
        cls, train: Sequences, validation: Sequences | None, recipe: HeadRecipe, settings: FitSettings
    ) -> FittedPart:
        """See ``Head.fit_part``."""
        # Prediction works without torch.
        from models.heads.temporal.fitting import fit_temporal

        return fit_temporal(train, validation, recipe, settings)

    def predict_seeds(
        self, branch: BranchName, sequence: SubjectSequence, earlier: Sequence[Sequence[np.ndarray]] = ()
    ) -> Iterator[np.ndarray]:
        """See ``Head.predict_seeds``. Features are converted in blocks."""
        settings, positions = self.config.branches[branch], Positions.of(sequence.seconds)
        seeds = [self.weights_of(seed, branch) for seed in range(self.config.seeds)]
        hidden = [np.empty((len(sequence), width_of(settings)), np.float32) for _ in seeds]
        for first in range(0, len(sequence), _BLOCK_FRAMES):
            block = slice(first, first + _BLOCK_FRAMES)
            inputs = sequence[block].inputs(settings.features, settings.scores)
            for weights, values in zip(seeds, hidden, strict=True):
                values[block] = project(weights, inputs, sequence.present[block])
        for weights, values in zip(seeds, hidden, strict=True):
            yield self._run(weights, settings, values, sequence.present, positions)

    def predict_branch(
        self, branch: BranchName, weights: dict[str, np.ndarray], inputs: np.ndarray, sequence: SubjectSequence
    ) -> np.ndarray:
        """See ``Head.predict_branch``."""
        settings, present = self.config.branches[branch], sequence.present
        hidden = project(weights, inputs, present)
        return self._run(weights, settings, hidden, present, Positions.of(sequence.seconds))

    def _run(
        self, weights: Weights, settings: BranchConfig, hidden: np.ndarray, present: np.ndarray, positions: Positions
    ) -> np.ndarray:
        if not positions.is_identity:
            hidden, present = hidden[positions.frames], present[positions.frames]
        return positions.to_frames(self._run_body(weights, settings.temporal or TemporalLayers(), hidden, present))

    @abstractmethod
    def _run_body(
        self, weights: Weights, layers: TemporalLayers, hidden: np.ndarray, present: np.ndarray
    ) -> np.ndarray:
        """Return the outputs before their activation, [P, K], of hidden values [P, width] at P positions."""


class TcnHead(TemporalHead):
    """Dilated convolutions over time with residual connections."""

    kind = "tcn"
    how: ClassVar[str] = _HOW.format(
        body="for each layer k = 0, 1, ...: h = h + ReLU(convolution of h over positions with convolutions.k.weight "
        "and convolutions.k.bias, dilation 2^k, zeros beyond the ends)"
    )

    @classmethod
    def _body_shapes(cls, width: int, layers: TemporalLayers) -> Shapes:
        names = [f"convolutions.{layer}" for layer in range(layers.layers)]
        shapes: Shapes = {f"{name}.weight": (width, width, layers.kernel) for name in names}
        return shapes | {f"{name}.bias": (width,) for name in names}

    def _run_body(
        self, weights: Weights, layers: TemporalLayers, hidden: np.ndarray, present: np.ndarray
    ) -> np.ndarray:
        return run_tcn(weights, layers, hidden)


class TransformerHead(TemporalHead):
    """A Transformer encoder over windows; every position is the weighted mean of two overlapping windows."""

    kind = "transformer"
    how: ClassVar[str] = _HOW.format(
        body="windows of 'window' positions start at every half window, the first one half a window before the "
        "sequence; in each, h = torch.nn.TransformerEncoder with norm_first, ReLU, 'heads' and a final norm (tensors "
        "encoder.*), of h + sinusoids of the position in the window (Vaswani et al. 2017, section 3.5), attending to "
        "positions with a face; the weight of position i of a window of W is min(i + 0.5, W - i - 0.5) / (W / 2)"
    )

    @classmethod
    def _body_shapes(cls, width: int, layers: TemporalLayers) -> Shapes:
        if width % layers.heads:
            raise ValueError(f"transformer: expected hidden units divisible by {layers.heads} heads, got {width}")
        of_layer: Shapes = {
            "self_attn.in_proj_weight": (3 * width, width),
            "self_attn.in_proj_bias": (3 * width,),
            "self_attn.out_proj.weight": (width, width),
            "self_attn.out_proj.bias": (width,),
            "linear1.weight": (2 * width, width),
            "linear1.bias": (2 * width,),
            "linear2.weight": (width, 2 * width),
            "linear2.bias": (width,),
        }
        of_layer |= {f"{name}.{part}": (width,) for name in ("norm1", "norm2") for part in ("weight", "bias")}
        shapes: Shapes = {"encoder.norm.weight": (width,), "encoder.norm.bias": (width,)}
        for layer in range(layers.layers):
            shapes |= {f"encoder.layers.{layer}.{name}": shape for name, shape in of_layer.items()}
        return shapes

    def _run_body(
        self, weights: Weights, layers: TemporalLayers, hidden: np.ndarray, present: np.ndarray
    ) -> np.ndarray:
        return run_transformer(weights, layers, hidden, present)
