"""The settings that the ablation of recipes compares."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from data_contracts.vocabulary import BranchName, TaskName
from models.decisions.recipes import ClassBias, PostProcessingRecipe
from models.decisions.smoothing import PUBLISHED_SMOOTHINGS, Smoothing
from models.heads.head import head_class
from models.heads.recipes import TaskRecipe
from models.recipes.registry import RECIPES, find_recipe

Section = Literal["heads", "fits", "temporal", "decisions", "blends", "calibration"]
PAPER: tuple[Section, str] = ("heads", "`paper`")
# What the settings of a section are compared with.
DEFAULT: tuple[Section, str] = ("heads", "`default`")
EVERY_FRAME: tuple[Section, str] = ("temporal", "`default`, every frame")
ALL_ROWS: tuple[Section, str] = ("fits", "all rows, batches of 128")
# Of the simulations, as of the command ``simulate``.
SCALE = 0.03
BACKBONE, OTHER_BACKBONE = "simulated_enet_b0", "simulated_mobilenet"
# Neighbouring frames are almost equal; most heads of single frames that take embeddings are fitted on every tenth.
STRIDE = 10
GATE_LEVELS = (0.7, 0.8, 0.9)
# Rows of an epoch at full size.
EPOCH_ROWS = 200_000


@dataclass(frozen=True)
class Member:
    """A head: its recipe, the frames that it is fitted on (every n-th), and the backbone of its features.

    ``as_published``: fitted in float32, as ``fit`` does for such recipes.
    """

    recipe: TaskRecipe
    every: int
    backbone: str = BACKBONE
    as_published: bool = False


@dataclass(frozen=True)
class Setting:
    """A row of a table: a head, or several whose outputs are blended with weights from folds, and how they decide.

    ``simulations``: number of simulated data sets that it is measured on at most.
    """

    section: Section
    name: str
    members: tuple[Member, ...]
    postprocessing: PostProcessingRecipe
    simulations: int = 4

    @property
    def kind(self) -> str:
        """Kind of the head; of a blend, that of the first member."""
        return self.members[0].recipe.kind


def member_of(recipe: TaskRecipe, *, every: int | None = None, backbone: str = BACKBONE) -> Member:
    """Return a head that is fitted on the usual frames: all for heads of sequences or scores, else every tenth."""
    if every is None:
        takes_all = head_class(recipe.kind).works_on == "sequences"
        every = 1 if takes_all or all(part.features == "scores" for part in recipe.parts) else STRIDE
    return Member(recipe.replace(seeds=1), every, backbone)


def reference_of(section: Section, task: TaskName) -> tuple[Section, str]:
    """Return the section and name of the setting that those of a section are compared with."""
    if section == "temporal" and task != "mtl":
        return EVERY_FRAME
    return ALL_ROWS if section == "fits" else DEFAULT


def settings_of(task: TaskName) -> Iterator[Setting]:
    """Yield the settings of a task; ``paper`` and ``default`` come before all others, temporal heads last."""
    named = {name: recipe for name, recipe in RECIPES.items() if task in recipe.tasks}
    rows = {n: r for n, r in named.items() if head_class(r.heads[task].kind).works_on == "rows"}
    for name, recipe in rows.items():
        member = replace(member_of(recipe.variant(task)), as_published=recipe.as_published)
        simulations = 2 if task == "mtl" else 4
        yield Setting("heads", f"`{name}`", (member,), recipe.postprocessing_of(task), simulations)
    if task != "mtl":
        yield from _changed_heads(task)
        yield from _decisions(task)
        yield from _blends(task)
        yield from _fits(task)
    for name, recipe in named.items():
        if name in rows:
            continue
        # Decides whether a temporal head enters recipe `best`.
        simulations = 4 if (task, name) == ("expr", "tcn") else 2
        member = member_of(recipe.variant(task))
        yield Setting("temporal", f"`{name}`", (member,), recipe.postprocessing_of(task), simulations)
    if task != "mtl":
        default, tcn = find_recipe("default"), find_recipe("tcn")
        members = tuple(member_of(recipe.variant(task)) for recipe in (tcn, default))
        yield Setting("blends", "`tcn` and perceptron", members, default.postprocessing_of(task), 1)


def _changed_heads(task: BranchName) -> Iterator[Setting]:
    """Yield the head of ``default`` with one change each."""
    default = find_recipe("default")
    head, tuned = default.variant(task), default.postprocessing_of(task)
    for name, changed in (
        ("linear head", head.replace(hidden_units=0)),
        ("embeddings and scores", head.replace(features="both")),
        ("scores only, linear", head.replace(features="scores", hidden_units=0)),
    ):
        yield Setting("heads", f"`default`, {name}", (member_of(changed),), tuned)


def _fits(task: BranchName) -> Iterator[Setting]:
    """Yield fits of ``default`` on every frame; for valence and arousal, also with other epochs and batches.

    The limit of the rows of an epoch is the same share of all rows as at full size.
    """
    default = find_recipe("default")
    head, tuned = default.variant(task), default.postprocessing_of(task)
    every = (member_of(head, every=1),)
    unsmoothed = tuned.replace(smoothings={task: (Smoothing(),)})
    yield Setting("temporal", "`default`, every frame, no window", every, unsmoothed, 1)
    yield Setting(*EVERY_FRAME, every, tuned, 4 if task == "expr" else 2)
    if task != "va":
        return
    part = head.replace(epoch_rows=round(EPOCH_ROWS * SCALE))
    yield Setting(*ALL_ROWS, every, tuned, 1)
    yield Setting("fits", "limited rows, batches of 128", (member_of(part, every=1),), tuned, 1)
    larger = member_of(part.replace(batch_size=512), every=1)
    yield Setting("fits", "limited rows, batches of 512", (larger,), tuned, 1)


def _blends(task: BranchName) -> Iterator[Setting]:
    default = find_recipe("default")
    head, tuned = default.variant(task), default.postprocessing_of(task)
    own, linear = member_of(head), member_of(head.replace(hidden_units=0))
    other = member_of(head, backbone=OTHER_BACKBONE)
    yield Setting("blends", "`default` on `simulated_mobilenet`, alone", (other,), tuned, 2)
    yield Setting("blends", "`default` on both backbones", (own, other), tuned, 2)
    yield Setting("blends", "`default` and a linear head", (own, linear), tuned, 2)


def _decisions(task: BranchName) -> Iterator[Setting]:
    """Yield other ways to decide with the outputs of ``default``; for valence and arousal also of ``best``."""
    default, best = find_recipe("default"), find_recipe("best")
    head, tuned = member_of(default.variant(task)), default.postprocessing_of(task)
    for name, changed in _postprocessings(task, tuned).items():
        yield Setting("decisions", name, (head,), changed)
    if task == "va":
        own = (member_of(best.variant(task)),)
        yield Setting("decisions", "`best`", own, best.postprocessing_of(task))
        yield Setting("decisions", "`best`, windows of values alone", own, tuned)
    else:
        yield Setting("calibration", "`default`", (head,), tuned.replace(calibration=True))


def _postprocessings(task: BranchName, default: PostProcessingRecipe) -> dict[str, PostProcessingRecipe]:
    """Return changes of the default post-processing, by name."""
    values = "values" if task == "va" else "probabilities"
    published = PUBLISHED_SMOOTHINGS["median 15" if task == "au" else "mean 15"]
    found = {
        "`default`": default,
        "no window": default.replace(smoothings={task: (Smoothing(),)}),
        "window as published, 15 frames": default.replace(smoothings={task: (published,)}),
        "windows of logits": default.replace(spaces=("logit",)),
        f"windows of {values} or logits": default.replace(spaces=("probability", "logit")),
        "options chosen in-sample": default.replace(selection="in_sample"),
    }
    if task == "expr":
        found |= {
            "no class bias": default.replace(class_bias=None),
            "class bias not shrunk": default.replace(shrinkage=False),
            "class bias of +-2, 41 steps, 3 passes": default.replace(class_bias=ClassBias(2.0, 41, 3)),
            "gate": default.replace(gate_levels=GATE_LEVELS),
        }
    if task == "au":
        found |= {
            "windows per action unit": default.replace(smoothing_per_unit=True),
            "thresholds on the published grid": default.replace(thresholds="grid"),
            "thresholds not shrunk": default.replace(shrinkage=False),
            "thresholds of outputs without a window": default.replace(thresholds_on="unsmoothed"),
        }
    return found
