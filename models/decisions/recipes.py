"""Recipes of post-processing: named, complete settings for everything from outputs to decisions."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from data_contracts.vocabulary import BRANCHES_OF_TASK, BranchName, TaskName
from models.decisions.smoothing import PUBLISHED_SMOOTHINGS, SMOOTHERS, Direction, Smoothing, Space


@dataclass(frozen=True)
class ClassBias:
    """How the class bias is searched; see ``tuning.class_bias.fit_class_bias``.

    Attributes:
        limit: the grid covers -limit..limit.
        steps: number of values of the grid.
        passes: how often every class is visited.
    """

    limit: float = 1.0
    steps: int = 9
    passes: int = 2

    def __post_init__(self) -> None:
        if not (0 < self.limit <= 100 and 2 <= self.steps <= 10_000 and 1 <= self.passes <= 100):
            raise ValueError(
                "class bias: expected a positive limit of at most 100, 2 to 10,000 steps and 1 to 100 passes, got "
                f"{self}"
            )

    @property
    def grid(self) -> np.ndarray:
        """All values that are tried, float64."""
        return np.linspace(-self.limit, self.limit, self.steps)


@dataclass(frozen=True)
class PostProcessingRecipe:
    """What ``tuning.tune_postprocessing`` tries for the branches of a task.

    Attributes:
        name: part of the names of post-processings.
        smoothings: tried for each branch; None: every registered smoother with its half widths in seconds.
        spaces: of registered smoothers: ``probability``, ``logit``, or both.
        smoothing_per_unit: each action unit may have a smoothing of its own.
        interpolation: how frames without a face are filled; see ``smoothing.interpolate_missing``.
        scored_rows: labelled rows that are tuned on and scored: ``all``, or ``published``
            (see ``subject_outputs.published_rows``).
        thresholds: of action units: the best of the published ``grid``, or the ``exact`` optimum.
        thresholds_on: the outputs that thresholds are searched on: ``smoothed`` as chosen, or ``unsmoothed``.
        class_bias: search of the class bias of expressions; None: no bias.
        selection: scores by which options are compared: ``in_sample``, or ``held_out``: on folds of videos that the
            class bias and the thresholds were not fitted on.
        shrinkage: shrink the class bias towards 0, and the thresholds towards each other, where folds disagree
            (``tuning.folds.shrink``).
        gate_levels: tried for the gate (``BranchRule.gate_level``), besides no gate.
        calibration: scale probabilities, such that they are shares of right decisions
            (``tuning.calibration.fit_scaling``).
    """

    name: str
    smoothings: dict[BranchName, tuple[Smoothing, ...]] | None = None
    interpolation: Direction = "linear"
    scored_rows: Literal["all", "published"] = "all"
    thresholds: Literal["grid", "exact"] = "exact"
    thresholds_on: Literal["smoothed", "unsmoothed"] = "smoothed"
    class_bias: ClassBias | None = None
    spaces: tuple[Space, ...] = ("probability",)
    smoothing_per_unit: bool = False
    selection: Literal["in_sample", "held_out"] = "in_sample"
    shrinkage: bool = False
    gate_levels: tuple[float, ...] = ()
    calibration: bool = False

    def replace(self, **changes: Any) -> "PostProcessingRecipe":
        """Return the recipe with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PostProcessingRecipe":
        """Return the recipe that ``to_dict`` described; fields that are missing have their defaults.

        Raises:
            ValueError: a field is unknown or has a wrong value.
        """
        given = dict(values)
        try:
            if (tried := given.get("smoothings")) is not None:
                given["smoothings"] = {
                    b: tuple(Smoothing(**one) for one in of_branch) for b, of_branch in tried.items()
                }
            if (bias := given.get("class_bias")) is not None:
                given["class_bias"] = ClassBias(**bias)
            given |= {name: tuple(given[name]) for name in ("spaces", "gate_levels") if name in given}
            return cls(**given)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"expected the fields of a recipe of post-processing, got {values!r}: {error}") from error

    def is_named(self, task: TaskName) -> bool:
        """Return whether the name alone determines the recipe."""
        return self.name in (PAPER.name, DEFAULT.name) and self == get_postprocessing_recipe(self.name, task=task)

    def smoothings_of(self, branch: BranchName) -> tuple[Smoothing, ...]:
        """Return the smoothings that are tried for a branch, in order."""
        return registered_smoothings(self.spaces) if self.smoothings is None else self.smoothings[branch]

    @property
    def needs_frame_rates(self) -> bool:
        """Whether windows depend on the frame rate of the video."""
        return self.smoothings is None or any(
            one.unit == "seconds" for of_branch in self.smoothings.values() for one in of_branch
        )

    def is_tuned(self, task: TaskName) -> bool:
        """Return whether anything is chosen on validation subjects."""
        branches = BRANCHES_OF_TASK[task]
        has_choice = any(len(self.smoothings_of(branch)) > 1 for branch in branches)
        return has_choice or "au" in branches or ("expr" in branches and self.class_bias is not None)

    def fingerprint_parts(self, task: TaskName) -> dict[str, Any]:
        """Return what the names of post-processings depend on, such that those in existing stores keep their names."""
        parts: dict[str, Any] = {"tuning": self.name}
        if self not in (PAPER, PAPER_MTL):
            parts["recipe"] = self
        if self.smoothings is None:
            parts["smoothings"] = registered_smoothings(self.spaces)
        # Earlier versions filled all gaps linearly.
        if self.interpolation != "linear":
            parts["direction"] = self.interpolation
        # Earlier versions scored labelled action units of all rows.
        if self.scored_rows == "published" and "au" in BRANCHES_OF_TASK[task]:
            parts["units"] = "of whole rows"
        return parts


def registered_smoothings(spaces: tuple[Space, ...] = ("probability",)) -> tuple[Smoothing, ...]:
    """Return every registered smoother with its half widths, in order."""
    found = [
        Smoothing(name, width, "seconds", space)
        for space in spaces
        for name, one in SMOOTHERS.items()
        for width in one.searched_half_widths_seconds
    ]
    # Without a window, the space does not matter.
    return (Smoothing(), *(one for one in found if one.method != "none"))


def get_postprocessing_recipe(name: str, *, task: TaskName) -> PostProcessingRecipe:
    """Return the recipe of this name for a task.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in (PAPER.name, DEFAULT.name):
        raise ValueError(f"recipe of post-processing: expected paper or default, got {name!r}")
    if name == DEFAULT.name:
        return DEFAULT
    return PAPER_MTL if task == "mtl" else PAPER


# The best published validation results (Savchenko 2022, table 5), with gaps filled as published.
PAPER = PostProcessingRecipe(
    "paper",
    smoothings={
        "expr": (PUBLISHED_SMOOTHINGS["mean 15"],),
        "va": (PUBLISHED_SMOOTHINGS["mean 15"],),
        "au": (PUBLISHED_SMOOTHINGS["median 15"],),
    },
    interpolation="published",
    scored_rows="published",
    thresholds="grid",
    thresholds_on="unsmoothed",
)
# The published multi-task code neither fills gaps nor smooths.
PAPER_MTL = PAPER.replace(
    smoothings=dict.fromkeys(PAPER.smoothings or (), (PUBLISHED_SMOOTHINGS["none"],)), interpolation="linear"
)
DEFAULT = PostProcessingRecipe("default", class_bias=ClassBias(), selection="held_out", shrinkage=True)
