"""Ablation of recipes on simulated data, whose best attainable score is known, for docs/recipes.md.

Usage: python tests/benchmarks/ablation.py CACHE [--simulations 4] [--task expr] [--only [PATTERN ...]]

Fits the heads of every setting with three seeds, tunes post-processing on folds of videos, and scores every video by
a rule that was tuned on the other folds, on every frame. Writes tests/benchmarks/results/ablation.json and the tables
of docs/recipes.md.

CACHE keeps outputs and scores, so that an interrupted run continues. ``--only`` selects settings, as in ``--only
'heads: *' '*: `tcn`'``; without a pattern it measures nothing and writes what the cache has. A row of an earlier run
stays unless the cache has it on at least as many simulations. Differences are from `default` and shares from `paper`:
a cache without the scores of both has no rows.
"""

import argparse
import json
import pickle
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ablation_data import SimulatedData
from ablation_settings import PAPER, SCALE, Member, Section, Setting, reference_of, settings_of
from ablation_tables import write_tables
from result_files import FOLDER, describe_machine

from data_contracts.store.fingerprint import fingerprint
from data_contracts.vocabulary import BRANCHES_OF_TASK, TASKS, BranchName, TaskName, normalize_name, video_of_subject
from models.decisions.blending import blend_subject
from models.decisions.evaluation import Metrics, bootstrap_intervals, count_rows
from models.decisions.postprocessing import PostProcessing
from models.decisions.recipes import PostProcessingRecipe
from models.decisions.subject_outputs import SubjectOutputs
from models.heads.metrics import MAIN_METRIC
from models.tuning.blend_weights import choose_weights, hold_out
from models.tuning.tuning import Tuned, tune_postprocessing
from tasks.results.evaluations import join_counts, joined_metrics
from tasks.simulate.attainable import attainable_scores
from tasks.simulate.labels import label_rule
from tasks.simulate.plan import plan_simulation

SEEDS = 3
# The tables of other sections do not show the scores of seeds alone.
SECTIONS_WITH_SEEDS = ("heads", "fits", "temporal")
Outputs = list[dict[BranchName, np.ndarray]]
RowName = tuple[Section, str]


@dataclass(frozen=True)
class Scored:
    """One setting on one simulation.

    Attributes:
        seeds: held-out score of each seed of the fits; empty in sections that do not show it.
        counts: of each video, decided with the outputs that are averaged over seeds; see ``count_rows``.
        seconds: processor time of the fits of one seed.
        parameters: of one seed.
        errors: calibration error before and after calibration; empty without calibration.
        coverage: share of the rows that are decided -> share of right decisions; empty without calibration.
    """

    seeds: list[float]
    counts: dict[BranchName, np.ndarray]
    seconds: float
    parameters: int
    errors: list[float] = field(default_factory=list)
    coverage: dict[str, float] = field(default_factory=dict)


# Setting -> simulation -> scores.
Measured = dict[RowName, dict[int, Scored]]


@dataclass(frozen=True)
class Row:
    """Scores of a setting: means over simulations, and 95 % intervals over videos.

    Attributes:
        simulations: held-out score of each, with the outputs that are averaged over seeds.
        score, low, high: their mean and its interval.
        seeds: mean over simulations for each seed of the fits.
        difference, difference_low, difference_high: from the reference of the section on the same simulations.
        share: of the distance between ``paper`` and the best attainable score, on the same simulations.
        seconds, parameters, errors, coverage: as of ``Scored``.
        processor: of the machine that measured it.
    """

    section: Section
    name: str
    simulations: list[float]
    score: float
    low: float
    high: float
    seeds: list[float]
    difference: float
    difference_low: float
    difference_high: float
    share: float
    seconds: float
    parameters: int
    errors: list[float]
    coverage: dict[str, float]
    processor: str


class Ablation:
    """Fits and scores the settings of one task on one simulation, or takes them from the cache."""

    def __init__(self, task: TaskName, cache: Path, *, simulation: int) -> None:
        self._task, self._cache, self._simulation = task, cache, simulation
        self._data: dict[str, SimulatedData] = {}

    def path_of(self, setting: Setting) -> Path:
        """Return the file of the cache for the scores of a setting; settings that differ in words share it."""
        postprocessing = setting.postprocessing.replace(name="ablation")
        known = replace(setting, section="heads", name="", simulations=1, postprocessing=postprocessing)
        return self._cache / f"{self._prefix}-scores-{_digest(known)}.pickle"

    def is_scored(self, setting: Setting) -> bool:
        """Return whether the cache has the scores of a setting, with those of seeds if its table shows them."""
        path = self.path_of(setting)
        if not path.exists():
            return False
        found: Scored = pickle.loads(path.read_bytes())
        return bool(found.seeds) or setting.section not in SECTIONS_WITH_SEEDS

    def score(self, setting: Setting) -> Scored:
        """Fit the heads of a setting, unless the cache has their outputs, and score it."""
        if self.is_scored(setting):
            found: Scored = pickle.loads(self.path_of(setting).read_bytes())
            return found
        fits = [[self._outputs(member, seed) for member in setting.members] for seed in range(SEEDS)]
        by_seed = [[outputs for outputs, _, _ in members] for members in fits]
        averaged = [_average(of_member) for of_member in zip(*by_seed, strict=True)]
        shown = by_seed if setting.section in SECTIONS_WITH_SEEDS else []
        seeds = [self._main_score(self._counts(one, setting)[0]) for one in shown]
        counts, tuned = self._counts(averaged, setting)
        errors = [e for one in tuned.calibration.values() for e in (one.before, one.after)]
        scored = Scored(
            seeds,
            counts,
            float(np.mean([sum(seconds for _, seconds, _ in members) for members in fits])),
            sum(parameters for _, _, parameters in fits[0]),
            errors,
            {f"{one.coverage:g}": one.accuracy for one in tuned.coverage},
        )
        self.path_of(setting).write_bytes(pickle.dumps(scored))
        return scored

    @property
    def _prefix(self) -> str:
        return f"{self._task}-{self._simulation}"

    def _outputs(self, member: Member, seed: int) -> tuple[Outputs, float, int]:
        """Return the outputs of every validation subject, the seconds of the fit, and the number of parameters."""
        path = self._cache / f"{self._prefix}-outputs-{_digest(member)}-{seed}.pickle"
        if not path.exists():
            data = self._data_of(member.backbone)
            started = time.process_time()
            head = data.fit(member, seed).head
            seconds = time.process_time() - started
            outputs = [dict(head.predict_sequence(one)) for _, one in data.validation]
            parameters = sum(tensor.size for tensor in head.tensors.values())
            path.write_bytes(pickle.dumps((outputs, seconds, parameters)))
        found: tuple[Outputs, float, int] = pickle.loads(path.read_bytes())
        return found

    def _data_of(self, backbone: str) -> SimulatedData:
        if backbone not in self._data:
            self._data[backbone] = SimulatedData(self._task, scale=SCALE, seed=self._simulation, backbone=backbone)
        return self._data[backbone]

    def _counts(self, outputs: Sequence[Outputs], setting: Setting) -> tuple[dict[BranchName, np.ndarray], Tuned]:
        """Return the counts of each video, decided by rules and weights that were chosen on the other folds."""
        pairs = zip(setting.members, outputs, strict=True)
        members = [self._data_of(member.backbone).subjects(one) for member, one in pairs]
        subjects = list(zip(*members, strict=True))
        tuned, blended = _tune(subjects, self._task, setting.postprocessing)
        rules = {name: fold.postprocessing for fold in tuned.folds for name in fold.subjects}
        return _counts_of_videos(blended, rules, BRANCHES_OF_TASK[self._task]), tuned

    def _main_score(self, counts: dict[BranchName, np.ndarray]) -> float:
        joined = join_counts(counts).sum(axis=0)[None]
        return float(joined_metrics(counts)(joined)[main_metric(self._task)][0])


def _tune(
    subjects: Sequence[Sequence[SubjectOutputs]], task: TaskName, recipe: PostProcessingRecipe
) -> tuple[Tuned, list[SubjectOutputs]]:
    """Return the tuned post-processing, and the subjects with the outputs that it decides."""
    alone = [members[0] for members in subjects]
    if len(subjects[0]) == 1:
        return tune_postprocessing(alone, task=task, recipe=recipe), alone
    chosen = choose_weights(subjects, task=task, recipe=recipe)
    held_out = {name: fold.weights for fold in chosen.folds for name in fold.subjects}
    blended = [blend_subject(members, held_out.get(members[0].name, chosen.weights)) for members in subjects]
    tuned = tune_postprocessing(blended, task=task, recipe=recipe)
    return hold_out(tuned, subjects, chosen, recipe=recipe), blended


def _counts_of_videos(
    subjects: Sequence[SubjectOutputs], rules: dict[str, PostProcessing], branches: Sequence[BranchName]
) -> dict[BranchName, np.ndarray]:
    """Return branch -> counts of each video; ``rules``: of each subject."""
    counts: dict[BranchName, dict[str, Any]] = {branch: {} for branch in branches}
    for one in subjects:
        if one.name not in rules:
            continue
        video, decisions = normalize_name(video_of_subject(one.name)), one.decide(rules[one.name])
        for branch, of_videos in counts.items():
            found = count_rows(branch, one.labels[branch], decisions[branch])
            of_videos[video] = of_videos.get(video, 0) + found
    return {branch: np.stack([of_videos[video] for video in sorted(of_videos)]) for branch, of_videos in counts.items()}


def main_metric(task: TaskName) -> str:
    """Return the metric of a task: the main metric of its branch, or P_MTL."""
    return "p_mtl" if task == "mtl" else MAIN_METRIC[task]


def _average(seeds: Sequence[Outputs]) -> Outputs:
    """Return the mean of the outputs of several seeds for each subject."""
    return [
        {branch: np.mean([one[branch] for one in of_subject], axis=0) for branch in of_subject[0]}
        for of_subject in zip(*seeds, strict=True)
    ]


def _digest(value: object) -> str:
    return fingerprint(value=value)[:12]


def row_of(name: RowName, measured: Measured, *, task: TaskName, attainable: dict[int, float]) -> Row | None:
    """Return the row of a setting from the scores of all settings of its task.

    It is on the simulations that its reference and ``paper`` are measured on, too; None if there are none.
    """
    found = measured[name]
    others = [measured.get(one, {}) for one in (reference_of(name[0], task), PAPER)]
    numbers = [number for number in found if all(number in one for one in others)]
    if not numbers:
        return None
    metric = main_metric(task)
    sides = [[one[number].counts for number in numbers] for one in (found, *others)]
    width = _joined(sides[0]).shape[1]

    def mean(sums: np.ndarray) -> np.ndarray:
        """Return the mean over simulations, from sums of joined counts [n, width]."""
        size = width // len(numbers)
        metrics = joined_metrics(sides[0][0])
        blocks = [metrics(sums[:, at * size : (at + 1) * size])[metric] for at in range(len(numbers))]
        return np.asarray(np.mean(blocks, axis=0))

    def compare(sums: np.ndarray) -> Metrics:
        own = mean(sums[:, :width])
        return {"score": own, "difference": own - mean(sums[:, width:])}

    intervals = bootstrap_intervals(np.concatenate([_joined(sides[0]), _joined(sides[1])], axis=1), compare)
    score, difference = intervals["score"], intervals["difference"]
    of_paper = float(mean(_joined(sides[2]).sum(axis=0)[None])[0])
    best = float(np.mean([attainable[number] for number in numbers]))
    alone = [joined_metrics(one)(join_counts(one).sum(axis=0)[None])[metric][0] for one in sides[0]]
    every = [found[number] for number in numbers]
    return Row(
        *name,
        [float(value) for value in alone],
        score.value,
        score.low or 0.0,
        score.high or 0.0,
        np.mean([one.seeds for one in every], axis=0).tolist() if name[0] in SECTIONS_WITH_SEEDS else [],
        difference.value,
        difference.low or 0.0,
        difference.high or 0.0,
        (score.value - of_paper) / (best - of_paper),
        float(np.mean([one.seconds for one in every])),
        every[0].parameters,
        [float(value) for value in np.mean([one.errors for one in every], axis=0)],
        {name: float(np.mean([one.coverage[name] for one in every])) for name in every[0].coverage},
        describe_machine()["processor"],
    )


def _joined(counts: Sequence[dict[BranchName, np.ndarray]]) -> np.ndarray:
    """Return the counts of the videos of several simulations, each in columns of its own, [V, n]."""
    blocks = [join_counts(one) for one in counts]
    width = blocks[0].shape[1]
    whole = np.zeros((sum(map(len, blocks)), width * len(blocks)))
    first = 0
    for number, block in enumerate(blocks):
        whole[first : first + len(block), number * width : (number + 1) * width] = block
        first += len(block)
    return whole


def attainable_of(simulation: int, cache: Path) -> dict[TaskName, float]:
    """Return the best attainable score of each task on the validation set of a simulation."""
    path = cache / f"attainable-{simulation}.json"
    if not path.exists():
        scores = attainable_scores(plan_simulation(SCALE, simulation), label_rule(SCALE, simulation))
        path.write_text(json.dumps({task: scores[task]["validation"][main_metric(task)] for task in TASKS}))
    found: dict[TaskName, float] = json.loads(path.read_text())
    return found


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--task", choices=TASKS, action="append")
    parser.add_argument("--simulations", type=int, default=4)
    parser.add_argument(
        "--only", nargs="*", metavar="PATTERN", help="measure settings whose 'section: name' matches a pattern"
    )
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    tasks: list[TaskName] = given.task or list(TASKS)
    attainable = {n: attainable_of(n, given.cache) for n in range(given.simulations)}
    found: dict[TaskName, Measured] = {}
    for simulation, kind, task in jobs(tasks, given.simulations):
        ablation = Ablation(task, given.cache, simulation=simulation)
        for setting in settings_of(task):
            is_known = ablation.is_scored(setting)
            is_asked = given.only is None or any(
                fnmatchcase(f"{setting.section}: {setting.name}", one) for one in given.only
            )
            is_due = simulation < setting.simulations and setting.kind == kind
            if not is_due or not (is_known or is_asked):
                continue
            started = time.monotonic()
            measured = found.setdefault(task, {}).setdefault((setting.section, setting.name), {})
            measured[simulation] = ablation.score(setting)
            if not is_known:
                seconds = time.monotonic() - started
                print(f"{seconds:.0f} s: simulation {simulation}, {task}: {setting.name}", flush=True)
    _save(found, attainable)


def jobs(tasks: Sequence[TaskName], simulations: int) -> list[tuple[int, str, TaskName]]:
    """Return (simulation, kind of heads, task), the slow ones last: ``mtl`` and temporal heads."""
    numbers = range(simulations)
    found = [(number, kind, task) for number in numbers for kind in ("mlp", "tcn", "transformer") for task in tasks]
    return sorted(found, key=lambda job: (job[2] == "mtl", ("mlp", "tcn", "transformer").index(job[1])))


def _save(found: dict[TaskName, Measured], attainable: dict[int, dict[TaskName, float]]) -> None:
    """Add the measured rows to the results, and write the tables."""
    path = FOLDER / "ablation.json"
    content = json.loads(path.read_text())
    content |= {"machine": describe_machine(), "scale": SCALE, "seeds": SEEDS}
    for task, measured in found.items():
        best = {number: scores[task] for number, scores in attainable.items()}
        rows = [row_of(name, measured, task=task, attainable=best) for name in measured]
        stored = content["tasks"][task]
        stored["attainable"] |= {str(number): score for number, score in best.items()}
        stored["rows"] = _merge(task, stored["rows"], [asdict(row) for row in rows if row is not None])
    path.write_text(json.dumps(content, indent=1) + "\n")
    write_tables(path)


def _merge(task: TaskName, stored: list[dict[str, Any]], measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of all settings; of two rows of a setting, the one on more simulations, else the measured one."""
    rows: dict[RowName, dict[str, Any]] = {}
    for row in (*stored, *measured):
        name = row["section"], row["name"]
        if name not in rows or len(row["simulations"]) >= len(rows[name]["simulations"]):
            rows[name] = row
    names = [(setting.section, setting.name) for setting in settings_of(task)]
    return [rows[name] for name in names if name in rows]


if __name__ == "__main__":
    main()
