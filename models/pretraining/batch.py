"""A batch of varied training pictures with labels, and its loss under a recipe."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.heads.losses import ccc_loss, smoothed_cross_entropy
from models.pretraining.recipes import PretrainingRecipe


@dataclass
class Batch:
    """Varied pictures float32 [n, px, px, 3] with their labels; those of the pictures blended in are ``other``.

    ``share``: of each picture itself, the rest is the other's.
    """

    pixels: Tensor
    classes: Tensor
    other_classes: Tensor
    affect: Tensor
    weights: Tensor
    share: float = 1.0

    def mixed(self, mixing: float, random: np.random.Generator) -> "Batch":
        """Each picture blended with another of the batch."""
        share = float(random.beta(mixing, mixing))
        other = torch.from_numpy(random.permutation(len(self.pixels))).to(self.pixels.device)
        return Batch(
            share * self.pixels + (1 - share) * self.pixels[other],
            self.classes,
            self.classes[other],
            self.affect,
            share * self.weights + (1 - share) * self.weights[other],
            share,
        )


def batch_loss(outputs: Tensor, batch: Batch, recipe: PretrainingRecipe, *, weights: Tensor, prior: Tensor) -> Tensor:
    """Loss of outputs [n, C] or, with valence and arousal, [n, C + 2]; rows without a label do not count.

    ``weights``, ``prior`` [C]: factors of the classes, and what is added to their logits.
    """
    count, total = len(weights), outputs.sum() * 0.0
    for classes, share in ((batch.classes, batch.share), (batch.other_classes, 1 - batch.share)):
        known = classes >= 0
        if share > 0 and known.any():
            total = total + share * smoothed_cross_entropy(
                outputs[known, :count] + prior,
                classes[known],
                weights=weights,
                rows=batch.weights[known],
                smoothing=recipe.label_smoothing,
            )
    if recipe.valence_arousal:
        rated = ~torch.isnan(batch.affect).any(dim=1)
        if rated.sum() > 1:
            # (1 - CCC_V) / 2 + (1 - CCC_A) / 2 is 1 - (CCC_V + CCC_A) / 2.
            total = total + ccc_loss(outputs[rated, count:], batch.affect[rated])
    return total
