"""Ablation of recipes on simulated data, whose best attainable score is known.

Usage: python tests/benchmarks/ablation.py CACHE [--task expr] [--scale 0.05] [--seeds 3] [--only-cached]

Fits the heads of every setting with several seeds, tunes post-processing on folds of videos, and scores every video by
a rule that was tuned on the other folds. CACHE keeps outputs and scores, so that an interrupted run continues. Writes
tests/benchmarks/results/ablation.json and the tables of docs/recipes.md.
"""

import argparse
import json
import pickle
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from result_files import FOLDER, describe_machine

from data_contracts.store.fingerprint import fingerprint
from data_contracts.vocabulary import BranchName, TaskName
from models.decisions.evaluation import bootstrap_intervals, count_rows, metrics_of_counts
from models.decisions.postprocessing import backbone_expressions
from models.decisions.recipes import ClassBias, PostProcessingRecipe
from models.decisions.subject_outputs import SubjectOutputs
from models.heads.fitting import FittedHead, fit_seeds
from models.heads.head import head_class
from models.heads.metrics import MAIN_METRIC
from models.heads.recipes import TaskRecipe
from models.heads.rows import TrainingRows
from models.heads.sequences import SubjectSequence
from models.recipes.registry import RECIPES, find_recipe
from models.tuning.tuning import Tuned, tune_postprocessing
from tasks.fit.subject_features import nominal_seconds
from tasks.simulate.attainable import attainable_scores
from tasks.simulate.features import BACKBONES, draw_features
from tasks.simulate.labels import draw_labels, label_rule, shifted_state
from tasks.simulate.plan import plan_simulation

BRANCHES: tuple[BranchName, ...] = ("expr", "va", "au")
BACKBONE = "simulated_enet_b0"
RESULTS, PAGE = FOLDER / "ablation.json", Path(__file__).parents[2] / "docs" / "recipes.md"
BEGIN, END = "<!-- ablation -->", "<!-- end of ablation -->"
# Neighbouring frames are almost equal; heads of single frames that take embeddings are fitted on every tenth of them.
STRIDE = 10
GATE_LEVELS = (0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Setting:
    """A row of a table: the heads whose outputs are averaged, and the post-processing.

    ``heads``: recipes of heads, with one seed each.
    """

    name: str
    heads: tuple[TaskRecipe, ...]
    postprocessing: PostProcessingRecipe


@dataclass(frozen=True)
class Row:
    """Scores of a setting: the held-out score of every seed, that of the averaged outputs with its interval over
    videos, seconds of the fits of one seed, and parameters."""

    name: str
    seeds: list[float]
    averaged: float
    low: float
    high: float
    seconds: float
    parameters: int


def settings_of(task: TaskName) -> Iterator[Setting]:
    """Yield ``paper``, ``default``, the default with one change each, and the other named recipes."""
    paper, default = find_recipe("paper"), find_recipe("default")
    head, tuned = default.variant(task), default.postprocessing_of(task)
    yield Setting("paper", (paper.variant(task),), paper.postprocessing_of(task))
    yield Setting("default", (head,), tuned)
    for change, values in (
        ("linear head", {"hidden_units": 0}),
        ("embeddings and scores", {"features": "both"}),
        ("scores only", {"features": "scores", "hidden_units": 0}),
    ):
        yield Setting(f"default, {change}", (head.replace(**values),), tuned)
    for change, changed in postprocessings_of(task, tuned).items():
        yield Setting(f"default, {change}", (head,), changed)
    yield Setting("default, blend with linear head", (head, head.replace(hidden_units=0)), tuned)
    for recipe in RECIPES.values():
        if recipe not in (paper, default) and task in recipe.tasks:
            yield Setting(recipe.name, (recipe.variant(task),), recipe.postprocessing_of(task))


def postprocessings_of(task: TaskName, default: PostProcessingRecipe) -> dict[str, PostProcessingRecipe]:
    """Return changes of the default post-processing, by name."""
    published = find_recipe("paper").postprocessing_of(task).smoothings
    found = {
        "published smoothing": default.replace(smoothings=published),
        "smoothing in logit space": default.replace(spaces=("logit",)),
        "options chosen in-sample, no shrinkage": default.replace(selection="in_sample", shrinkage=False),
    }
    if task == "expr":
        found["no class bias"] = default.replace(class_bias=None)
        found["class bias +-2, 41 steps, 3 passes"] = default.replace(class_bias=ClassBias(2.0, 41, 3))
        found["gate"] = default.replace(gate_levels=GATE_LEVELS)
        found["gate, no class bias"] = default.replace(gate_levels=GATE_LEVELS, class_bias=None)
    if task == "au":
        found["smoothing per unit"] = default.replace(smoothing_per_unit=True)
        found["thresholds on the grid"] = default.replace(thresholds="grid")
    return found


class Data:
    """The simulated rows and validation subjects of one task."""

    def __init__(self, task: BranchName, *, scale: float) -> None:
        plan, rule = plan_simulation(scale, 0), label_rule(scale, 0)
        self.train: list[SubjectSequence] = []
        self.validation: list[tuple[str, SubjectSequence]] = []
        for subject in plan.subjects:
            if (set_name := subject.sets.get(task)) not in ("train", "validation"):
                continue
            embeddings, logits = draw_features(
                BACKBONES[BACKBONE], 0, subject, shifted_state(plan, subject, rule).state
            )
            labels = {task: draw_labels(plan, subject).branches[task]}
            count = len(labels[task])
            frames = nominal_seconds(np.arange(1, count + 1))
            sequence = SubjectSequence(embeddings.astype(np.float16), logits, np.ones(count, bool), frames, labels)
            if set_name == "train":
                self.train.append(sequence)
            else:
                self.validation.append((subject.name, sequence))

    def rows(self, *, validation: bool, every: int) -> TrainingRows:
        """Return every n-th frame of the videos of a set."""
        chosen = [one for _, one in self.validation] if validation else self.train
        branch = next(iter(chosen[0].labels))
        return TrainingRows(
            np.concatenate([one.embeddings[::every] for one in chosen]),
            np.concatenate([one.logits[::every] for one in chosen]),
            {branch: np.concatenate([one.labels[branch][::every] for one in chosen])},
        )

    def fit(self, task: BranchName, recipe: TaskRecipe, seed: int) -> FittedHead:
        """Fit a head with one seed."""
        if head_class(recipe.kind).works_on == "rows":
            every = 1 if all(part.features == "scores" for part in recipe.parts) else STRIDE
            train, validation = (self.rows(validation=is_validation, every=every) for is_validation in (False, True))
        else:
            train, validation = self.train, [one for _, one in self.validation]
        return fit_seeds(train, validation, task=task, recipe=recipe.replace(seeds=1), first_seed=seed)


class Ablation:
    """Rows of the table of one task."""

    def __init__(self, task: BranchName, cache: Path, *, scale: float, seeds: int) -> None:
        self._task, self._cache, self._scale, self._seeds = task, cache, scale, seeds
        self._data: Data | None = None

    def path_of(self, setting: Setting) -> Path:
        """Return the file of the cache for the scores of a setting."""
        return self._cache / f"{self._task}-{_digest(setting)}.json"

    def row(self, setting: Setting) -> Row:
        """Fit the heads of a setting, unless the cache has their outputs, and score it."""
        path = self.path_of(setting)
        if path.exists():
            return Row(**json.loads(path.read_text()) | {"name": setting.name})
        fits = [[self._outputs(head, seed) for head in setting.heads] for seed in range(self._seeds)]
        by_seed = [_average([outputs for outputs, _, _ in heads]) for heads in fits]
        scored = [self._score(outputs, setting.postprocessing) for outputs in by_seed]
        whole = self._score(_average(by_seed), setting.postprocessing)
        seconds = float(np.mean([sum(one for _, one, _ in heads) for heads in fits]))
        row = Row(
            setting.name,
            [held_out(tuned, subjects)[0] for tuned, subjects in scored],
            *held_out(*whole),
            seconds,
            sum(parameters for _, _, parameters in fits[0]),
        )
        path.write_text(json.dumps(asdict(row)))
        return row

    def _outputs(self, recipe: TaskRecipe, seed: int) -> tuple[list[np.ndarray], float, int]:
        """Return the outputs of every validation subject, the seconds of the fit, and the number of parameters."""
        path = self._cache / f"{self._task}-{_digest(recipe.replace(seeds=1))}-{seed}.pickle"
        if not path.exists():
            started = time.process_time()
            head = self.data.fit(self._task, recipe, seed).head
            seconds = time.process_time() - started
            outputs = [head.predict_sequence(one)[self._task] for _, one in self.data.validation]
            parameters = sum(tensor.size for tensor in head.tensors.values())
            path.write_bytes(pickle.dumps((outputs, seconds, parameters)))
        found: tuple[list[np.ndarray], float, int] = pickle.loads(path.read_bytes())
        return found

    @property
    def data(self) -> Data:
        """The simulated data, drawn on first use."""
        if self._data is None:
            self._data = Data(self._task, scale=self._scale)
        return self._data

    def _score(self, outputs: list[np.ndarray], recipe: PostProcessingRecipe) -> tuple[Tuned, list[SubjectOutputs]]:
        subjects = [
            SubjectOutputs(
                name,
                {self._task: values},
                one.present,
                np.arange(len(one)),
                dict(one.labels),
                backbone=backbone_expressions(one.logits, BACKBONES[BACKBONE].classes)
                if self._task == "expr"
                else None,
            )
            for (name, one), values in zip(self.data.validation, outputs, strict=True)
        ]
        return tune_postprocessing(subjects, task=self._task, recipe=recipe), subjects


def held_out(tuned: Tuned, subjects: Sequence[SubjectOutputs]) -> tuple[float, float, float]:
    """Return the held-out score and its bootstrap interval over videos."""
    rules = {name: fold.postprocessing for fold in tuned.folds for name in fold.subjects}
    (branch,) = subjects[0].outputs
    counts = np.stack(
        [
            count_rows(branch, one.labels[branch], one.decide(rules[one.name])[branch])
            for one in subjects
            if one.name in rules
        ]
    )
    found = bootstrap_intervals(counts, lambda sums: metrics_of_counts(branch, sums))[MAIN_METRIC[branch]]
    assert found.low is not None and found.high is not None
    return found.value, found.low, found.high


def _average(outputs: Sequence[list[np.ndarray]]) -> list[np.ndarray]:
    return [np.mean(of_subject, axis=0) for of_subject in zip(*outputs, strict=True)]


def _digest(value: object) -> str:
    """Return digits that name a file of the cache: of a head, or of a setting without its name."""
    return fingerprint(value=replace(value, name="") if isinstance(value, Setting) else value)[:12]


def table(task: str, rows: Sequence[Row], attainable: float) -> list[str]:
    """Return a Markdown table of the rows of one task."""
    paper = np.mean(rows[0].seeds)
    lines = [
        f"{task}, {MAIN_METRIC[task]}; best attainable score {attainable:.3f}:",
        "",
        "| setting | held-out (mean of seeds) | of seeds | averaged | interval | share | fit, s | parameters |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        mean = float(np.mean(row.seeds))
        lines.append(
            f"| {row.name} | {mean:.3f} | {min(row.seeds):.3f} .. {max(row.seeds):.3f} | {row.averaged:.3f} | "
            f"{row.low:.3f} .. {row.high:.3f} | {(mean - paper) / (attainable - paper):.0%} | {row.seconds:.1f} | "
            f"{row.parameters:,} |"
        )
    return [*lines, ""]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--task", choices=BRANCHES, action="append")
    parser.add_argument("--scale", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only-cached", action="store_true", help="leave out settings without scores in CACHE")
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    best = given.cache / "attainable.json"
    if not best.exists():
        scores = attainable_scores(plan_simulation(given.scale, 0), label_rule(given.scale, 0))
        best.write_text(json.dumps({task: scores[task]["validation"][MAIN_METRIC[task]] for task in BRANCHES}))
    attainable = json.loads(best.read_text())
    content = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"tasks": {}}
    content |= {"machine": describe_machine(), "scale": given.scale, "seeds": given.seeds, "attainable": attainable}
    for task in given.task or BRANCHES:
        ablation, rows = Ablation(task, given.cache, scale=given.scale, seeds=given.seeds), []
        for setting in settings_of(task):
            if given.only_cached and not ablation.path_of(setting).exists():
                continue
            rows.append(ablation.row(setting))
            print(task, rows[-1], flush=True)
        content["tasks"][task] = [asdict(row) for row in rows]
        RESULTS.write_text(json.dumps(content, indent=1) + "\n")
    if PAGE.exists():
        tables = [
            line
            for task, rows in content["tasks"].items()
            for line in table(task, [Row(**row) for row in rows], attainable[task])
        ]
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text("\n".join([before + BEGIN, "", *tables, END]) + rest.split(END)[1])


if __name__ == "__main__":
    main()
