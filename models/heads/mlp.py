"""Multi-layer perceptrons as heads, linear or with hidden ReLU layers. They predict every frame separately."""

import itertools
from typing import TYPE_CHECKING

import numpy as np

from data_contracts.vocabulary import DIMENSIONS, EXPRESSIONS, BranchName, TaskName
from models.heads.head import (
    OUTPUT_NAMES,
    Activation,
    BranchConfig,
    FitSettings,
    FittedPart,
    Head,
    HeadConfig,
    take_tensors,
)
from models.heads.recipes import HeadRecipe, hidden_sizes
from models.heads.sequences import SubjectSequence, input_width

if TYPE_CHECKING:
    from models.heads.rows import TrainingRows

# A logit whose exponential is 0 in float32: expressions that the backbone does not know get probability 0.
_NEVER = -1e4


class MlpHead(Head["TrainingRows"]):
    """Linear layers with ReLU between them, and an activation per branch."""

    kind = "mlp"
    works_on = "rows"
    how = (
        "x = embeddings, scores, or embeddings followed by scores, as 'features' says; scores are the logits of the "
        "backbone or, if 'scores' is probabilities, their softmax; the outputs of branches in 'inputs_from', of the "
        "same seed and after their activation, follow; for each seed s and layer k in "
        "order: x = x @ tensor['seed{s}.{branch}.{k}.weight'].T + tensor['seed{s}.{branch}.{k}.bias'], then ReLU if "
        "another layer follows, else 'activation'; outputs are the mean over seeds"
    )

    def __init__(self, config: HeadConfig, tensors: dict[str, np.ndarray]) -> None:
        """Make a head of ``seed0.expr.0.weight`` [out, in], ``seed0.expr.0.bias`` [out], ...

        Raises:
            ValueError: a tensor is missing or does not have the shape that the configuration requires.
        """
        expected = _shapes(config)
        super().__init__(config, take_tensors(tensors, expected))

    @classmethod
    def fit_part(
        cls, train: "TrainingRows", validation: "TrainingRows | None", recipe: HeadRecipe, settings: FitSettings
    ) -> FittedPart:
        """See ``Head.fit_part``."""
        # Prediction works without torch.
        from models.heads.mlp_fitting import fit_mlp

        return fit_mlp(train, validation, recipe, settings)

    def predict_branch(
        self, branch: BranchName, weights: dict[str, np.ndarray], inputs: np.ndarray, sequence: SubjectSequence
    ) -> np.ndarray:
        """See ``Head.predict_branch``."""
        last = len(hidden_sizes(self.config.branches[branch].hidden_units))
        for layer in range(last + 1):
            inputs = inputs @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
            if layer < last:
                inputs = np.maximum(inputs, 0)
        return inputs


def _shapes(config: HeadConfig) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for seed in range(config.seeds):
        for branch, settings in config.branches.items():
            width = input_width(settings.features, config.embedding_size, config.logits_size)
            width += sum(len(OUTPUT_NAMES[other]) for other in settings.inputs_from)
            sizes = (width, *hidden_sizes(settings.hidden_units), len(OUTPUT_NAMES[branch]))
            for layer, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
                name = f"seed{seed}.{branch}.{layer}"
                shapes |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    return shapes


def zero_shot_heads(class_names: tuple[str, ...], embedding_size: int) -> dict[TaskName, MlpHead]:
    """Return heads without fitting, for the tasks that the outputs of a backbone answer.

    ``expr``: softmax over the classes that are among the eight expressions; "Other" is never predicted, because no
    backbone knows it. ``va``: the outputs valence and arousal, limited to -1..1. Other outputs are left out.

    Raises:
        ValueError: fewer than two classes are expressions, and there is no valence or arousal.
    """
    heads: dict[TaskName, MlpHead] = {}
    known = [name for name in EXPRESSIONS if name in class_names]
    if len(known) > 1:
        bias = np.array([0.0 if name in known else _NEVER for name in EXPRESSIONS], np.float32)
        heads["expr"] = _selecting_head("expr", EXPRESSIONS, bias, class_names, embedding_size)
    if set(DIMENSIONS) <= set(class_names):
        heads["va"] = _selecting_head("va", DIMENSIONS, np.zeros(2, np.float32), class_names, embedding_size, "clip")
    if not heads:
        raise ValueError(
            f"expected a backbone with classes such as {', '.join(EXPRESSIONS[:5])}, got {', '.join(class_names[:5])}"
        )
    return heads


def _selecting_head(
    branch: BranchName,
    outputs: tuple[str, ...],
    bias: np.ndarray,
    class_names: tuple[str, ...],
    embedding_size: int,
    activation: Activation | None = None,
) -> MlpHead:
    """Return a linear head whose outputs are the logits of the same names."""
    weight = np.array([[float(name == output) for name in class_names] for output in outputs], np.float32)
    branches = {branch: BranchConfig("scores", 0, activation)}
    config = HeadConfig(branch, embedding_size, len(class_names), 1, branches)
    return MlpHead(config, {f"seed0.{branch}.0.weight": weight, f"seed0.{branch}.0.bias": bias})
