"""A head without fitting: the backbone's own expression classes, in the order of the challenge's."""

import numpy as np

from models.heads.head import BranchConfig, Head, HeadConfig
from models.heads.metrics import EXPRESSIONS

# As a logit: e to this is 0 in float32, so that an expression which the backbone does not know has probability 0.
_NEVER = -1e4


def zero_shot_head(class_names: tuple[str, ...], embedding_size: int) -> Head:
    """Softmax over the logits of those of the eight expressions that are among a backbone's classes.

    Other classes (contempt, valence, ...) are left out; "Other" is never predicted, for no backbone knows it.

    Raises:
        ValueError: fewer than two classes are expressions.
    """
    weight = np.zeros((len(EXPRESSIONS), len(class_names)), np.float32)
    bias = np.full(len(EXPRESSIONS), _NEVER, np.float32)
    for row, name in enumerate(EXPRESSIONS):
        if name in class_names:
            weight[row, class_names.index(name)], bias[row] = 1.0, 0.0
    if (bias == 0).sum() < 2:
        raise ValueError(
            f"expected a backbone with classes such as {', '.join(EXPRESSIONS[:5])}, got {class_names[:5]}"
        )
    config = HeadConfig("expr", embedding_size, len(class_names), 1, {"expr": BranchConfig("scores", 0)})
    return Head(config, {"seed0.expr.0.weight": weight, "seed0.expr.0.bias": bias})
