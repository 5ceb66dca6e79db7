"""From outputs to decisions: interpolation, smoothing, class bias, thresholds. ``tuning`` chooses their values."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from data_contracts.vocabulary import BRANCHES_OF_TASK, BranchName, TaskName
from models.decisions.smoothing import Direction, Smoothing, get_smoother, interpolate_missing, smooth

_TINY = 1e-7


@dataclass(frozen=True)
class BranchRule:
    """The steps for one branch after interpolation.

    Attributes:
        method, half_width_frames: smoothing; the method is a name in ``smoothing.SMOOTHERS``.
        class_bias: eight values added to the log-probabilities of expressions before the largest is chosen.
        thresholds: twelve values; an action unit is active at its threshold and above.
    """

    method: str = "none"
    half_width_frames: int = 0
    class_bias: tuple[float, ...] = (0.0,) * 8
    thresholds: tuple[float, ...] = (0.5,) * 12

    def __post_init__(self) -> None:
        get_smoother(self.method)
        if len(self.class_bias) != 8 or len(self.thresholds) != 12 or self.half_width_frames < 0:
            raise ValueError(f"expected 8 biases, 12 thresholds and a half width of at least 0, got {self}")

    def decide(self, branch: BranchName, smoothed: np.ndarray) -> np.ndarray:
        """Return class indices int64 [T], values float32 [T, 2] within -1..1, or zeros and ones uint8 [T, 12].

        NaN (a subject without any face) becomes Neutral, 0 and 0, because submissions require these rows too.
        """
        if branch == "expr":
            biased = np.log(np.maximum(np.nan_to_num(smoothed), _TINY)) + np.asarray(self.class_bias)
            return biased.argmax(axis=1)
        if branch == "va":
            return np.clip(np.nan_to_num(smoothed), -1, 1)
        return (smoothed.astype(np.float64) >= np.asarray(self.thresholds)).astype(np.uint8)


@dataclass(frozen=True)
class PostProcessing:
    """All steps from outputs to decisions for one task."""

    task: TaskName
    direction: Direction = "linear"
    rules: dict[BranchName, BranchRule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task not in BRANCHES_OF_TASK or set(self.rules) != set(BRANCHES_OF_TASK[self.task]):
            raise ValueError(f"expected a rule for each branch of {self.task}, got {sorted(self.rules)}")

    def smooth(self, outputs: dict[BranchName, np.ndarray], present: np.ndarray) -> dict[BranchName, np.ndarray]:
        """Interpolate and smooth the outputs [T, K] of one subject; returns float32 [T, K]."""
        return {
            branch: smooth(
                interpolate_missing(outputs[branch], present, direction=self.direction),
                method=rule.method,
                half_width_frames=rule.half_width_frames,
            )
            for branch, rule in self.rules.items()
        }

    def apply(self, outputs: dict[BranchName, np.ndarray], present: np.ndarray) -> dict[BranchName, np.ndarray]:
        """Return the decisions for one subject and each branch; see ``BranchRule.decide``."""
        return {branch: self.rules[branch].decide(branch, x) for branch, x in self.smooth(outputs, present).items()}

    def with_smoothing(self, smoothing: Smoothing) -> "PostProcessing":
        """Return the same steps with another smoothing of every branch. Thresholds and class bias stay."""
        method, half_width = smoothing
        rules = {b: replace(rule, method=method, half_width_frames=half_width) for b, rule in self.rules.items()}
        return replace(self, rules=rules)

    def to_dict(self) -> dict[str, Any]:
        """Return values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PostProcessing":
        """Return the post-processing that ``to_dict`` described.

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
    return BranchRule(**values)


def untuned_postprocessing(task: TaskName) -> PostProcessing:
    """Return linear interpolation, no smoothing and thresholds of 0.5."""
    return PostProcessing(task, rules={branch: BranchRule() for branch in BRANCHES_OF_TASK[task]})
