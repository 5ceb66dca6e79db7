"""Recipes for training a backbone: the paper's two steps (Savchenko 2022, section 2), and ours for few pictures."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

Goal = Literal["identity", "emotion"]
PretrainingName = Literal["paper", "default"]
_RISE = 0.05


@dataclass(frozen=True)
class Phase:
    """Some epochs with one learning rate, of the class layer alone (``head``) or of all layers.

    ``cosine``: the rate rises over the first twentieth of the phase and falls to zero along half a cosine.
    """

    layers: Literal["head", "all"]
    epochs: int
    learning_rate: float
    cosine: bool = False

    def rate_at(self, done: float) -> float:
        """Learning rate after a share ``done`` in 0..1 of the phase."""
        if not self.cosine:
            return self.learning_rate
        return self.learning_rate * min(1.0, done / _RISE + 0.01) * (0.5 + 0.5 * math.cos(math.pi * done))


@dataclass(frozen=True)
class PretrainingRecipe:
    """How a backbone is trained.

    Attributes:
        rho: radius of sharpness-aware minimisation; 0 is plain Adam.
        weight_decay: decoupled from the gradient (Loshchilov and Hutter 2019).
        balance: class weights are (max n / n) ** balance; 1 as published, 0 none.
        prior_power: log p(class) times this is added to the logits in the loss (Menon et al. 2021, arXiv 2007.07314,
            equation 10): with 1 the network learns to decide as if all classes were as frequent, with 0 as they are.
        person_power: a picture counts n ** -person_power, n being how many of its class show the same person.
        mixing: pictures of a batch are blended in pairs, labels too, with a share from Beta(mixing, mixing) (Zhang et
            al. 2018, arXiv 1710.09412); 0 off. Not together with valence and arousal.
        valence_arousal: two more outputs, trained with (1 - CCC_V) / 2 + (1 - CCC_A) / 2 on rows that have values.
        frozen_stages: so many of the first stages (with the stem) keep their weights when all layers are trained.
        average: decay of the moving average of the weights that is measured and kept; 0 keeps the weights themselves.
        smallest_crop: training pictures are random parts of the face with a share of its area from here to 1 (somewhat
            less where a side is cut at the face's); 1 the whole.
        stretch: width to height of a part, on the square face, is up to this or at least its inverse.
        rotation_degrees, flip: random turns either way; random mirroring.
        jitter, blur: brightness, contrast and saturation vary by up to this share; share of pictures that are blurred.
        grey: the network sees luminance only.
        keep: which epoch's weights are kept, ``best`` by the figure on the validation pictures or ``last``.
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
            raise ValueError("expected a batch of at least 2 pictures and phases of at least 0 epochs")
        if not 0 < self.smallest_crop <= 1 or self.rho < 0:
            raise ValueError("expected a smallest crop in 0..1 and a rho of at least 0")
        if not 0 <= self.average < 1 or self.stretch < 1:
            raise ValueError("expected an average in 0..1 and a stretch of at least 1")

    def replace(self, **changes: Any) -> "PretrainingRecipe":
        """The recipe with some fields changed."""
        return dataclasses.replace(self, **changes)

    @property
    def epochs(self) -> int:
        """Epochs of all phases."""
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
# For some thousand pictures with rare classes and doubtful labels. There a class can come from few people, or from few
# sources with colours and a sharpness of their own, and a network would learn these: so luminance only, blur, and
# people with many pictures of a class count less. Blended pictures and a moving average of the weights are against
# labels learnt by heart; that the first stages stay saves a quarter of the time as well. A quarter of the prior in the
# loss makes rare classes likelier than they are. The last epoch is kept, so that no figure on the validation pictures
# has chosen it.
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
    """The recipe of that name for a goal."""
    return (_PAPER if name == "paper" else _DEFAULT)[goal]
