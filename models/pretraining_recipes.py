"""Recipes for training a backbone: the paper's two steps (Savchenko 2022, section 2), and ours for few pictures."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

Goal = Literal["identity", "emotion"]
PretrainingName = Literal["paper", "default"]


@dataclass(frozen=True)
class Phase:
    """Some epochs with one learning rate, of the class layer alone (``head``) or of all layers.

    ``cosine``: the rate falls to zero along half a cosine over the phase.
    """

    layers: Literal["head", "all"]
    epochs: int
    learning_rate: float
    cosine: bool = False


@dataclass(frozen=True)
class PretrainingRecipe:
    """How a backbone is trained.

    Attributes:
        rho: radius of sharpness-aware minimisation; 0 is plain Adam.
        balance: class weights are (max n / n) ** balance; 1 as published, 0 none.
        valence_arousal: two more outputs, trained with (1 - CCC_V) / 2 + (1 - CCC_A) / 2 on rows that have values.
        smallest_crop: training pictures are random parts of the face of at least this share of its area; 1 the whole.
        flip, jitter, blur: random mirroring; random brightness, contrast and saturation by up to this share; share of
            pictures that are blurred.
        person_power: a picture counts n ** -person_power, n being how many of its class show the same person.
        grey: the network sees luminance only.
        keep: which epoch's weights are kept, ``best`` by the figure on the validation pictures or ``last``.
    """

    goal: Goal
    phases: tuple[Phase, ...]
    batch_size: int
    rho: float = 0.05
    balance: float = 1.0
    label_smoothing: float = 0.0
    dropout: float = 0.0
    valence_arousal: bool = False
    smallest_crop: float = 1.0
    flip: bool = True
    jitter: float = 0.0
    blur: float = 0.0
    person_power: float = 0.0
    grey: bool = False
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        if self.batch_size < 2 or not self.phases or min(phase.epochs for phase in self.phases) < 0:
            raise ValueError("expected a batch of at least 2 pictures and phases of at least 0 epochs")
        if not 0 < self.smallest_crop <= 1 or self.rho < 0:
            raise ValueError("expected a smallest crop in 0..1 and a rho of at least 0")

    def replace(self, **changes: Any) -> "PretrainingRecipe":
        """The recipe with some fields changed."""
        return dataclasses.replace(self, **changes)

    @property
    def epochs(self) -> int:
        """Epochs of all phases."""
        return sum(phase.epochs for phase in self.phases)


# Savchenko's notebooks (train_faces_torch, train_emotions-pytorch): Adam inside SAM, no schedule, best accuracy kept.
_PAPER: dict[Goal, PretrainingRecipe] = {
    "identity": PretrainingRecipe(
        "identity", (Phase("head", 1, 1e-3), Phase("all", 7, 1e-4)), batch_size=48, balance=0.0, smallest_crop=0.08
    ),
    "emotion": PretrainingRecipe(
        "emotion", (Phase("head", 3, 1e-3), Phase("all", 5, 1e-4)), batch_size=64, label_smoothing=0.1
    ),
}
# For some thousand pictures with rare classes. There a class can come from few people, or from few sources with colours
# and a sharpness of their own, and a network would learn these: so luminance only, blur, and people with many pictures
# of a class count less. Weights of square roots; no smoothing, which with weights would pull all pictures to the rare
# classes; no second pass per step, but more epochs; a rate that falls, and the last epoch, so that no figure on the
# validation pictures has chosen it.
_DEFAULT: dict[Goal, PretrainingRecipe] = {
    "identity": _PAPER["identity"].replace(smallest_crop=0.5, jitter=0.2),
    "emotion": PretrainingRecipe(
        "emotion",
        (Phase("head", 1, 1e-3), Phase("all", 12, 5e-4, cosine=True)),
        batch_size=48,
        rho=0.0,
        balance=0.5,
        dropout=0.2,
        smallest_crop=0.6,
        jitter=0.3,
        blur=0.3,
        person_power=0.5,
        grey=True,
        keep="last",
    ),
}


def get_pretraining(name: PretrainingName, goal: Goal) -> PretrainingRecipe:
    """The recipe of that name for a goal."""
    return (_PAPER if name == "paper" else _DEFAULT)[goal]
