"""Recipes for training a backbone: the paper's two steps (Savchenko 2022, section 2), and one for few images."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

Goal = Literal["identity", "emotion"]
PretrainingName = Literal["paper", "default"]
_RISE = 0.05


@dataclass(frozen=True)
class Phase:
    """Some epochs with one learning rate, in which the class layer alone (``head``) or all layers are trained.

    ``cosine``: the rate rises over the first twentieth of the phase and then falls to zero along half a cosine.
    """

    layers: Literal["head", "all"]
    epochs: int
    learning_rate: float
    cosine: bool = False

    def rate_at(self, done: float) -> float:
        """Return the learning rate after a share ``done`` in 0..1 of the phase."""
        if not self.cosine:
            return self.learning_rate
        return self.learning_rate * min(1.0, done / _RISE + 0.01) * (0.5 + 0.5 * math.cos(math.pi * done))


@dataclass(frozen=True)
class PretrainingRecipe:
    """All settings of a training.

    Attributes:
        rho: radius of sharpness-aware minimisation; 0 means plain Adam.
        weight_decay: decoupled from the gradient (Loshchilov and Hutter 2019).
        balance: class weights are (max n / n) ** balance; 1 as published, 0 for equal weights.
        prior_power: log p(class) times this is added to the logits in the loss (Menon et al. 2021, arXiv 2007.07314,
            equation 10). With 1 the network learns to decide as if all classes had equal frequency, with 0 it learns
            their actual frequencies.
        person_power: the weight of an image is n ** -person_power, with n images of its class showing the same person.
        mixing: mixup (Zhang et al. 2018, arXiv 1710.09412): images and labels of a batch are blended in pairs, with a
            share from Beta(mixing, mixing); 0 means off. Ignored with valence and arousal.
        valence_arousal: two more outputs, trained with (1 - CCC_V) / 2 + (1 - CCC_A) / 2 on rows that have values.
        frozen_stages: number of first stages (including the stem) that keep their weights when all layers are trained.
        average: decay of the moving average of the weights that is evaluated and kept; 0 keeps the weights themselves.
        smallest_crop: training images are random parts of the face, with a share of its area from this value to 1
            (slightly less where a side is clipped at the face's); 1 means the whole face.
        stretch: the aspect ratio of a part, on the square face, is between 1 / stretch and stretch.
        rotation_degrees, flip: largest random rotation in either direction; random mirroring.
        jitter, blur: largest relative change of brightness, contrast and saturation; share of blurred images.
        grey: the network gets luminance only.
        keep: the epoch whose weights are kept: ``best`` by accuracy on the validation images, or ``last``.
    """

    goal: Goal
    phases: tuple[Phase, ...]
    batch_size: int
    rho: float = 0.05
    weight_decay: float = 0.0
    balance: float = 1.0
    prior_power: float = 0.0
    person_power: float = 0.0
    mixing: float = 0.0
    label_smoothing: float = 0.0
    dropout: float = 0.0
    valence_arousal: bool = False
    frozen_stages: int = 0
    average: float = 0.0
    smallest_crop: float = 1.0
    stretch: float = 4 / 3
    rotation_degrees: float = 0.0
    flip: bool = True
    jitter: float = 0.0
    blur: float = 0.0
    grey: bool = False
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        if self.batch_size < 2 or not self.phases or min(phase.epochs for phase in self.phases) < 0:
            raise ValueError("expected a batch of at least 2 images and phases of at least 0 epochs")
        if not 0 < self.smallest_crop <= 1 or self.rho < 0:
            raise ValueError("expected a smallest crop in 0..1 and a rho of at least 0")
        if not 0 <= self.average < 1 or self.stretch < 1:
            raise ValueError("expected an average in 0..1 and a stretch of at least 1")

    def replace(self, **changes: Any) -> "PretrainingRecipe":
        """Return the recipe with some fields changed."""
        return dataclasses.replace(self, **changes)

    @property
    def epochs(self) -> int:
        """Number of epochs of all phases."""
        return sum(phase.epochs for phase in self.phases)


# Savchenko's notebooks (train_faces_torch, train_emotions-pytorch; mirroring as in train_affectnet_march2021_pytorch):
# Adam inside SAM, no schedule, best accuracy kept.
_PAPER: dict[Goal, PretrainingRecipe] = {
    "identity": PretrainingRecipe(
        "identity", (Phase("head", 1, 1e-3), Phase("all", 7, 1e-4)), batch_size=48, balance=0.0, smallest_crop=0.08
    ),
    "emotion": PretrainingRecipe(
        "emotion", (Phase("head", 3, 1e-3), Phase("all", 5, 1e-4)), batch_size=64, label_smoothing=0.1
    ),
}
# For a few thousand images with rare classes and unreliable labels. A class may come from few people, or from few
# sources with typical colours and sharpness, which a network would learn. Therefore the recipe uses luminance only,
# blurs images, and gives people with many images of a class less weight. Mixup and a moving average of the weights
# reduce memorisation of labels; frozen first stages do so too and save a quarter of the time. A quarter of the prior in
# the loss makes rare classes more likely than they are. The last epoch is kept, so that the selection does not use the
# validation images.
_DEFAULT: dict[Goal, PretrainingRecipe] = {
    "identity": _PAPER["identity"].replace(smallest_crop=0.5, jitter=0.2),
    "emotion": PretrainingRecipe(
        "emotion",
        (Phase("all", 12, 1e-3, cosine=True),),
        batch_size=32,
        rho=0.0,
        weight_decay=0.01,
        balance=0.0,
        prior_power=0.25,
        person_power=0.5,
        mixing=0.4,
        dropout=0.3,
        frozen_stages=2,
        average=0.998,
        smallest_crop=0.55,
        stretch=1.25,
        rotation_degrees=15,
        jitter=0.35,
        blur=0.3,
        grey=True,
        keep="last",
    ),
}


def get_pretraining(name: PretrainingName, goal: Goal) -> PretrainingRecipe:
    """Return the recipe of that name for a goal."""
    return (_PAPER if name == "paper" else _DEFAULT)[goal]
