"""Who plays in the generated data set, and how: identities, expressions through time, and the labels that follow."""

from dataclasses import dataclass

import numpy as np

from data_contracts.vocabulary import ACTION_UNITS, EXPRESSIONS

# Prototypes after Ekman & Friesen's EMFACS; "Other" is a mixture that is none of them.
UNITS_OF: dict[str, tuple[str, ...]] = {
    "Neutral": (),
    "Anger": ("AU4", "AU7", "AU23", "AU24"),
    "Disgust": ("AU10", "AU15", "AU7"),
    "Fear": ("AU1", "AU2", "AU4", "AU25"),
    "Happiness": ("AU6", "AU12", "AU25"),
    "Sadness": ("AU1", "AU4", "AU15"),
    "Surprise": ("AU1", "AU2", "AU25", "AU26"),
    "Other": ("AU2", "AU12", "AU24"),
}
# Valence and arousal at full intensity, after Russell's circumplex (1980).
VALENCE_AROUSAL: dict[str, tuple[float, float]] = {
    "Neutral": (0.0, 0.0),
    "Anger": (-0.6, 0.7),
    "Disgust": (-0.7, 0.2),
    "Fear": (-0.6, 0.85),
    "Happiness": (0.85, 0.4),
    "Sadness": (-0.75, -0.45),
    "Surprise": (0.25, 0.8),
    "Other": (0.3, -0.3),
}
_VISIBLE = 0.5


@dataclass(frozen=True, eq=False)
class Performance:
    """One person through time.

    Attributes:
        expression: int [T], class that is played.
        intensity: float [T], 0..1.
        units: float [T, 12], intensity of each action unit.
        visible: bool [T], whether the face is in the picture.
    """

    expression: np.ndarray
    intensity: np.ndarray
    units: np.ndarray
    visible: np.ndarray

    @property
    def expression_labels(self) -> np.ndarray:
        """int [T]: the class, -1 where the face is away or an expression is only beginning or ending."""
        clear = (self.intensity >= _VISIBLE) | (self.expression == 0)
        return np.where(clear & self.visible, self.expression, -1)

    @property
    def valence_arousal(self) -> np.ndarray:
        """float [T, 2] in -1..1, -5 where the face is away."""
        full = np.array([VALENCE_AROUSAL[name] for name in EXPRESSIONS])[self.expression]
        return np.where(self.visible[:, None], full * self.intensity[:, None], -5.0)

    @property
    def unit_labels(self) -> np.ndarray:
        """int [T, 12]: 0 or 1, -1 where the face is away."""
        return np.where(self.visible[:, None], (self.units >= _VISIBLE).astype(int), -1)


def perform(frame_count: int, *, leaves: bool, random: np.random.Generator) -> Performance:
    """Play all expressions in random order, each rising and falling; ``leaves``: away for about a sixth."""
    order = random.permutation(len(EXPRESSIONS))
    bounds = np.linspace(0, frame_count, len(order) + 1).round().astype(int)
    expression, intensity = np.zeros(frame_count, int), np.zeros(frame_count)
    for index, first, last in zip(order, bounds, bounds[1:], strict=False):
        expression[first:last] = index
        phase = (np.arange(last - first) + 0.5) / (last - first)
        intensity[first:last] = random.uniform(0.8, 1.0) * np.clip(4 * np.minimum(phase, 1 - phase), 0, 1)
    pattern = np.array([[unit in UNITS_OF[name] for unit in ACTION_UNITS] for name in EXPRESSIONS])
    units = pattern[expression] * intensity[:, None] * random.uniform(0.85, 1.0, (1, len(ACTION_UNITS)))
    visible = np.ones(frame_count, bool)
    if leaves:
        away = max(8, frame_count // 6)
        start = int(random.integers(frame_count // 4, frame_count // 2))
        visible[start : start + away] = False
    return Performance(expression, intensity, units, visible)


@dataclass(frozen=True)
class Appearance:
    """What tells one person from another of the same portrait, and where in the picture the face is."""

    portrait: int
    mirrored: bool
    gain_rgb: tuple[float, float, float]
    scale: float
    centre_xy: tuple[float, float]
    sway_px: float
    phase: float


def appear(number: int, *, centre_xy: tuple[float, float], random: np.random.Generator) -> Appearance:
    """A person by number: portraits take turns, the rest is drawn."""
    warmth, light = random.uniform(-0.08, 0.08), random.uniform(0.85, 1.12)
    return Appearance(
        portrait=number % 2,
        mirrored=bool(random.integers(2)),
        gain_rgb=(light * (1 + warmth), light, light * (1 - warmth)),
        scale=random.uniform(0.8, 1.0),
        centre_xy=centre_xy,
        sway_px=random.uniform(3, 9),
        phase=random.uniform(0, 2 * np.pi),
    )
