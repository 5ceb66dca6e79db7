"""From outputs to decisions: interpolation, smoothing, class bias, thresholds. ``tuning`` chooses their values."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from data_contracts.vocabulary import ACTION_UNITS, BRANCHES_OF_TASK, EXPRESSIONS, BranchName, TaskName
from models.decisions.smoothing import (
    Direction,
    Smoothing,
    from_logits,
    interpolate_missing,
    smooth_outputs,
    to_logits,
)

_TINY = 1e-7
_OTHER = EXPRESSIONS.index("Other")


@dataclass(frozen=True)
class Scaling:
    """Calibration of smoothed probabilities, a line in their logits (``smoothing.to_logits``).

    Attributes:
        slopes: positive; one for all expressions, whose inverse is the temperature, or twelve for action units.
        offsets: as many; that of expressions is 0.
    """

    slopes: tuple[float, ...]
    offsets: tuple[float, ...]

    def apply(self, branch: BranchName, probability: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities float32 [T, K]; NaN stays."""
        return from_logits(branch, to_logits(branch, probability) * np.array(self.slopes) + np.array(self.offsets))


@dataclass(frozen=True)
class BranchRule:
    """The steps for one branch after interpolation.

    Attributes:
        smoothings: one for all outputs, or one for each action unit.
        scaling: calibration of smoothed probabilities; None: they stay.
        class_bias: eight values added to the log-probabilities of expressions before the largest is chosen.
        thresholds: twelve values; an action unit is active at its threshold and above.
        gate_level: where the backbone's own probability of an expression, smoothed like the outputs, is above this
            level, its expression is chosen instead of the head's; None: nowhere.
    """

    smoothings: tuple[Smoothing, ...] = (Smoothing(),)
    class_bias: tuple[float, ...] = (0.0,) * len(EXPRESSIONS)
    thresholds: tuple[float, ...] = (0.5,) * len(ACTION_UNITS)
    scaling: Scaling | None = None
    gate_level: float | None = None

    def __post_init__(self) -> None:
        sizes = len(self.smoothings), len(self.class_bias), len(self.thresholds)
        if sizes not in ((1, 8, 12), (12, 8, 12)):
            raise ValueError(f"expected 1 or 12 smoothings, 8 biases and 12 thresholds, got {self}")

    @property
    def is_smoothed(self) -> bool:
        """Whether outputs are smoothed."""
        return any(one.method != "none" for one in self.smoothings)

    def describe_smoothing(self) -> str:
        """Return the smoothing in words; those of action units with their names."""
        units: dict[str, list[str]] = {}
        for name, one in zip(ACTION_UNITS, self.smoothings, strict=False):
            units.setdefault(one.describe(), []).append(name)
        if len(units) == 1:
            return next(iter(units))
        return "; ".join(f"{' '.join(names)}: {words}" for words, names in units.items())

    def smooth(self, branch: BranchName, filled: np.ndarray, *, frames_per_second: float) -> np.ndarray:
        """Return smoothed and calibrated outputs float32 [T, K] of outputs without gaps."""
        parts = np.split(filled, len(self.smoothings), axis=1) if len(self.smoothings) > 1 else [filled]
        smoothed = [
            smooth_outputs(branch, part, one, frames_per_second=frames_per_second)
            for part, one in zip(parts, self.smoothings, strict=True)
        ]
        joined = np.concatenate(smoothed, axis=1) if len(smoothed) > 1 else smoothed[0]
        return self.scaling.apply(branch, joined) if self.scaling else joined

    def decide(self, branch: BranchName, smoothed: np.ndarray, backbone: np.ndarray | None = None) -> np.ndarray:
        """Return class indices int64 [T], values float32 [T, 2] within -1..1, or zeros and ones uint8 [T, 12].

        NaN (a subject without any face) becomes Neutral, 0 and 0, because submissions require these rows too.

        Args:
            branch: of the outputs.
            smoothed: as ``smooth`` returns them.
            backbone: smoothed probabilities [T, 8] of the backbone, as ``backbone_expressions`` returns them.

        Raises:
            ValueError: the rule has a gate, and the probabilities of the backbone are missing.
        """
        if branch == "expr":
            biased = np.log(np.maximum(np.nan_to_num(smoothed), _TINY)) + np.asarray(self.class_bias)
            chosen = biased.argmax(axis=1)
            if self.gate_level is None:
                return chosen
            if backbone is None:
                raise ValueError("expected the expressions of the backbone, which the gate compares with its level")
            gated = gated_expressions(backbone, self.gate_level)
            return np.where(gated >= 0, gated, chosen)
        if branch == "va":
            return np.clip(np.nan_to_num(smoothed), -1, 1)
        return (smoothed.astype(np.float64) >= np.asarray(self.thresholds)).astype(np.uint8)


def backbone_expressions(logits: np.ndarray, class_names: tuple[str, ...]) -> np.ndarray:
    """Return the probabilities float32 [T, 8] of the expressions that a backbone knows, from its logits [T, C].

    They are the softmax over all of its classes. A class that is no expression, such as Contempt of AffectNet, keeps
    its share, but no column: where a backbone sees it, no expression is likely. Other, which no backbone knows, is 0.

    Raises:
        ValueError: fewer than two classes are expressions.
    """
    known = [name for name in EXPRESSIONS if name in class_names]
    if len(known) < 2:
        raise ValueError(
            f"expected a backbone with classes such as Neutral and Anger, got {', '.join(class_names[:5])}"
        )
    classes = [at for at, name in enumerate(class_names) if name not in ("valence", "arousal")]
    softmax = from_logits("expr", np.asarray(logits)[:, classes])
    found = np.zeros((len(softmax), len(EXPRESSIONS)), np.float32)
    for name in known:
        found[:, EXPRESSIONS.index(name)] = softmax[:, classes.index(class_names.index(name))]
    return found


def gated_expressions(backbone: np.ndarray, level: float) -> np.ndarray:
    """Return the backbone's class int64 [T] where its probability [T, 8] is above the level, else -1; never Other."""
    known = np.nan_to_num(backbone)[:, :_OTHER]
    return np.where(known.max(axis=1) > level, known.argmax(axis=1), -1)


@dataclass(frozen=True)
class PostProcessing:
    """All steps from outputs to decisions for one task. ``SubjectOutputs.decide`` applies them to a subject."""

    task: TaskName
    direction: Direction = "linear"
    rules: dict[BranchName, BranchRule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task not in BRANCHES_OF_TASK or set(self.rules) != set(BRANCHES_OF_TASK[self.task]):
            raise ValueError(f"expected a rule for each branch of {self.task}, got {sorted(self.rules)}")

    @property
    def has_gate(self) -> bool:
        """Whether decisions depend on the backbone's own expressions."""
        return any(rule.gate_level is not None for rule in self.rules.values())

    def smooth(
        self, outputs: dict[BranchName, np.ndarray], present: np.ndarray, *, frames_per_second: float
    ) -> dict[BranchName, np.ndarray]:
        """Interpolate, smooth and calibrate the outputs [T, K] of one subject; returns float32 [T, K]."""
        return {
            branch: rule.smooth(
                branch,
                interpolate_missing(outputs[branch], present, direction=self.direction),
                frames_per_second=frames_per_second,
            )
            for branch, rule in self.rules.items()
        }

    def smooth_backbone(self, backbone: np.ndarray, present: np.ndarray, *, frames_per_second: float) -> np.ndarray:
        """Interpolate and smooth the backbone's own expressions [T, 8] as the outputs of expressions."""
        filled = interpolate_missing(backbone, present, direction=self.direction)
        smoothing = self.rules["expr"].smoothings[0]
        return smooth_outputs("expr", filled, smoothing, frames_per_second=frames_per_second)

    def with_smoothing(self, smoothing: Smoothing) -> "PostProcessing":
        """Return the same steps with another smoothing of every branch. Thresholds and class bias stay."""
        return replace(self, rules={b: replace(rule, smoothings=(smoothing,)) for b, rule in self.rules.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PostProcessing":
        """Return the post-processing that ``to_dict`` described, also that of an earlier version.

        Raises:
            ValueError: a field is missing, unknown or has a wrong value.
        """
        try:
            rules = {branch: _rule(fields) for branch, fields in values["rules"].items()}
            return cls(values["task"], values["direction"], rules)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"expected the fields of a post-processing, got {values!r}: {error!r}") from error


def _rule(fields: dict[str, Any]) -> BranchRule:
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
    # Earlier versions had one window in frames.
    if "half_width_frames" in values:
        values["smoothings"] = [{"method": values.pop("method"), "half_width": values.pop("half_width_frames")}]
    if scaling := values.get("scaling"):
        values["scaling"] = Scaling(tuple(scaling["slopes"]), tuple(scaling["offsets"]))
    return BranchRule(**values | {"smoothings": tuple(Smoothing(**one) for one in values["smoothings"])})


def untuned_postprocessing(task: TaskName) -> PostProcessing:
    """Return linear interpolation, no smoothing and thresholds of 0.5."""
    return PostProcessing(task, rules={branch: BranchRule() for branch in BRANCHES_OF_TASK[task]})
