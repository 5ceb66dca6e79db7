"""A recipe: one named and versioned object with every setting from features to decisions, per task."""

import re
from dataclasses import dataclass

from data_contracts.vocabulary import BRANCHES_OF_TASK, BranchName, ScoreForm, TaskName
from models.decisions.recipes import PostProcessingRecipe
from models.heads.recipes import HeadRecipe, HiddenUnits, TaskRecipe, hidden_sizes

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True)
class Recipe:
    """Settings of the heads and of the post-processing of one or several tasks.

    Attributes:
        name: part of the names of heads: a small letter, then small letters, digits and underscores.
        version: from 1; raised when values change.
        summary: one line about what the recipe is for.
        heads: task -> how its head is fitted.
        postprocessing: task -> how decisions are tuned. The names of these recipes are not used.
        as_published: scores have the form that the authors' heads take from the backbone, matrix products are in
            float32, and other hidden layers select the published variant with its L2.
    """

    name: str
    version: int
    summary: str
    heads: dict[TaskName, TaskRecipe]
    postprocessing: dict[TaskName, PostProcessingRecipe]
    as_published: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"name: expected a small letter, then at most 31 small letters, digits and _, got {self.name!r}"
            )
        if self.version < 1:
            raise ValueError(f"version: expected at least 1, got {self.version}")
        if not self.summary.strip() or "\n" in self.summary:
            raise ValueError(f"summary: expected one line, got {self.summary!r}")
        for task, recipe in self.heads.items():
            _check_head(task, recipe)
        for task, rules in self.postprocessing.items():
            _check_postprocessing(task, rules)
        if not self.heads or set(self.heads) != set(self.postprocessing):
            raise ValueError("expected a head and a post-processing of at least one task")

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """Tasks that the recipe has settings for."""
        return tuple(self.heads)

    def is_part_of(self, other: "Recipe") -> bool:
        """Return whether the other recipe has the same values for the tasks of this one."""
        return self.as_published == other.as_published and all(
            self.heads[task] == other.heads.get(task)
            and task in other.postprocessing
            and self.postprocessing_of(task) == other.postprocessing_of(task).replace(name=self.name)
            for task in self.tasks
        )

    def variant(
        self, task: TaskName, *, hidden_units: HiddenUnits | None = None, published_scores: ScoreForm = "logits"
    ) -> TaskRecipe:
        """Return how the head of a task is fitted.

        Args:
            task: one of ``tasks``.
            hidden_units: hidden layers instead of the recipe's. The published variants differ in more than layers:
                single-task heads carry L2 only if they are linear, multi-task heads always.
            published_scores: of the backbone (``BackboneSpec``); matters only for a recipe ``as_published``.

        Raises:
            ValueError: the recipe has no such task, or ``hidden_units`` is not valid.
        """
        if task not in self.heads:
            raise ValueError(f"recipe {self.name}: expected a table [{task}], found {', '.join(self.heads)}")
        recipe = self.heads[task]
        if self.as_published:
            recipe = recipe.replace(scores=published_scores)
        if hidden_units is None:
            return recipe
        if not self.as_published or task == "mtl":
            return recipe.replace(hidden_units=hidden_units)
        is_linear = not hidden_sizes(hidden_units)
        return TaskRecipe(tuple(_published_variant(part, hidden_units, is_linear=is_linear) for part in recipe.parts))

    def postprocessing_of(self, task: TaskName) -> PostProcessingRecipe:
        """Return how decisions of a task are tuned, under the name of this recipe.

        Raises:
            ValueError: the recipe has no such task.
        """
        if task not in self.postprocessing:
            raise ValueError(f"recipe {self.name}: expected a table [{task}], found {', '.join(self.heads)}")
        return self.postprocessing[task].replace(name=self.name)


def _check_head(task: TaskName, recipe: TaskRecipe) -> None:
    expected, found = sorted(BRANCHES_OF_TASK[task]), sorted(b for part in recipe.parts for b in part.branches)
    if task != "mtl" and (others := [branch for branch in found if branch not in expected]):
        raise ValueError(
            f"{task}.head: would use labels of {', '.join(others)}; challenges of a single task allow only "
            "labels of that task; write the parts into [[mtl.head]] and fit mtl"
        )
    if expected != found:
        raise ValueError(f"{task}.head: expected branches {', '.join(expected)}, got {', '.join(found)}")
    ready: set[BranchName] = set()
    for part in recipe.parts:
        if wrong := [branch for branch in part.inputs_from if branch not in ready]:
            raise ValueError(
                f"{task}.head: inputs_from: expected branches of earlier parts without own inputs_from, got "
                f"{', '.join(wrong)}"
            )
        ready |= set() if part.inputs_from else set(part.branches)
    for field in ("kind", "seeds"):
        if len(values := {getattr(part, field) for part in recipe.parts}) > 1:
            raise ValueError(f"{task}.head: expected one {field} in all parts, got {sorted(values)}")


def _check_postprocessing(task: TaskName, rules: PostProcessingRecipe) -> None:
    tried = rules.smoothings
    if tried is not None and (lost := [branch for branch in BRANCHES_OF_TASK[task] if not tried.get(branch)]):
        raise ValueError(f"{task}.postprocessing.smoothings.{lost[0]}: expected at least one, found none")
    if not rules.spaces:
        raise ValueError(f"{task}.postprocessing.spaces: expected probability, logit or both, got none")
    if levels := [level for level in rules.gate_levels if not 0 < level < 1]:
        raise ValueError(f"{task}.postprocessing.gate_levels: expected numbers between 0 and 1, got {levels[0]}")


def _published_variant(part: HeadRecipe, hidden_units: HiddenUnits, *, is_linear: bool) -> HeadRecipe:
    return part.replace(hidden_units=hidden_units, l2=1 / part.batch_size if is_linear else 0.0)
