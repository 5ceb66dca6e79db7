"""The people of the generated data set: their appearance, their expressions over time, and the labels."""

from dataclasses import dataclass

import numpy as np

from data_contracts.vocabulary import ACTION_UNITS, EXPRESSIONS, BranchName

# Prototypes after Ekman & Friesen's EMFACS. "Other" is a combination that matches no prototype.
_ACTION_UNITS_OF: dict[str, tuple[str, ...]] = {
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
_VALENCE_AROUSAL: dict[str, tuple[float, float]] = {
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
    """The expressions of one person over time; T is the number of frames.

    Attributes:
        expression: int [T], class.
        intensity: float [T], 0..1.
        action_units: float [T, 12], intensity of each action unit, 0..1.
        visible: bool [T], whether the frame shows the face.
    """

    expression: np.ndarray
    intensity: np.ndarray
    action_units: np.ndarray
    visible: np.ndarray

    @property
    def expression_labels(self) -> np.ndarray:
        """Return the class per frame, int [T]; -1 without a face, and while an expression starts or ends."""
        clear = (self.intensity >= _VISIBLE) | (self.expression == 0)
        return np.where(clear & self.visible, self.expression, -1)

    @property
    def valence_arousal(self) -> np.ndarray:
        """Return valence and arousal, float32 [T, 2] in -1..1 with three decimals; NaN without a face."""
        full = np.array([_VALENCE_AROUSAL[name] for name in EXPRESSIONS])[self.expression]
        values = (full * self.intensity[:, None]).round(3)
        return np.where(self.visible[:, None], values, np.nan).astype(np.float32)

    @property
    def action_unit_labels(self) -> np.ndarray:
        """Return 0 or 1 per action unit, int [T, 12]; -1 without a face."""
        return np.where(self.visible[:, None], (self.action_units >= _VISIBLE).astype(int), -1)

    @property
    def labels(self) -> dict[BranchName, np.ndarray]:
        """Return the labels of all tasks."""
        return {"expr": self.expression_labels, "va": self.valence_arousal, "au": self.action_unit_labels}


def make_performance(frame_count: int, *, leaves: bool, random: np.random.Generator) -> Performance:
    """Return a performance of all expressions in random order, each with a rising and a falling intensity.

    ``leaves``: the face is not visible in about a sixth of the frames.
    """
    order = random.permutation(len(EXPRESSIONS))
    bounds = np.linspace(0, frame_count, len(order) + 1).round().astype(int)
    expression, intensity = np.zeros(frame_count, int), np.zeros(frame_count)
    for index, first, last in zip(order, bounds, bounds[1:], strict=False):
        expression[first:last] = index
        phase = (np.arange(last - first) + 0.5) / (last - first)
        intensity[first:last] = random.uniform(0.8, 1.0) * np.clip(4 * np.minimum(phase, 1 - phase), 0, 1)
    pattern = np.array([[unit in _ACTION_UNITS_OF[name] for unit in ACTION_UNITS] for name in EXPRESSIONS])
    action_units = pattern[expression] * intensity[:, None] * random.uniform(0.85, 1.0, (1, len(ACTION_UNITS)))
    visible = np.ones(frame_count, bool)
    if leaves:
        away = max(8, frame_count // 6)
        start = int(random.integers(frame_count // 4, frame_count // 2))
        visible[start : start + away] = False
    return Performance(expression, intensity, action_units, visible)


@dataclass(frozen=True)
class Appearance:
    """Properties that distinguish people with the same portrait, and the position of the face in the frame.

    Attributes:
        portrait: index of the portrait.
        gain_rgb: factor of each colour channel.
        scale: size relative to the patch.
        centre_xy: mean position of the face's centre, in pixels.
        sway_px, phase: amplitude and phase (radians) of its movement.
    """

    portrait: int
    mirrored: bool
    gain_rgb: tuple[float, float, float]
    scale: float
    centre_xy: tuple[float, float]
    sway_px: float
    phase: float


def make_appearance(number: int, *, centre_xy: tuple[float, float], random: np.random.Generator) -> Appearance:
    """Return the appearance of a person: the portraits alternate with the number, the rest is random."""
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
