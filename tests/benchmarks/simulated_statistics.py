"""Print the table of docs/simulation.md: statistics of a simulated data set beside those of Aff-Wild2.

Run: .venv/bin/python -m tests.benchmarks.simulated_statistics [SCALE] [SEED]
"""

import sys
from collections import Counter
from dataclasses import dataclass

import numpy as np

from data_contracts.vocabulary import ACTION_UNITS, BRANCHES, EXPRESSIONS, BranchName, SetName
from models.heads.metrics import has_label
from tasks.simulate import published
from tasks.simulate.labels import draw_labels
from tasks.simulate.plan import SimulationPlan, plan_simulation

_FIT_SETS: tuple[SetName, ...] = ("train", "validation")


@dataclass(frozen=True)
class Statistic:
    """A number of a simulated data set.

    Attributes:
        published: the number of Aff-Wild2 times the scale; None if nobody published it.
        tolerance: largest relative difference that a test accepts; 0: equal.
        source: where it was published; for an assumption, what it is.
    """

    name: str
    published: float | None
    simulated: float
    tolerance: float
    source: str

    @property
    def is_close(self) -> bool:
        """Return whether the difference is within the tolerance; one frame is always within."""
        if self.published is None:
            return True
        return abs(self.simulated - self.published) <= max(self.tolerance * self.published, 1 if self.tolerance else 0)


def compare_with_published(plan: SimulationPlan) -> list[Statistic]:
    """Draw all labels of a plan, and return its statistics beside the published ones.

    Numbers of subjects and videos are compared at scale 1 only, because smaller scales have fewer subjects
    and shorter videos.
    """
    counts, affect, runs = _count(plan)
    return [*(_of_plan(plan) if plan.scale == 1 else []), *_of_labels(plan, counts), *_of_processes(plan, affect, runs)]


def _of_plan(plan: SimulationPlan) -> list[Statistic]:
    videos = {subject.video: subject for subject in plan.subjects}
    found = [
        Statistic("subjects", published.SUBJECTS, len(plan.subjects), 0, "A3 c14"),
        Statistic("videos", published.VIDEOS, len(videos), 0, "A3 c7"),
        Statistic("crops", published.CROPS, sum(s.frames - s.missing_count for s in plan.subjects), 0, "A3 c14"),
        Statistic(
            "frames that containers claim",
            published.CONTAINER_FRAMES,
            sum(video.container_count for video in videos.values()),
            0,
            "A3 c7",
        ),
    ]
    beyond = [video.last_crop - video.container_count for video in videos.values()]
    for low, high, count in published.CROPS_BEYOND_CONTAINER:
        name = f"videos with last crop - container count of {low:+d}" + (f" to {high:+d}" if low != high else "")
        found.append(Statistic(name, count, sum(low <= one <= high for one in beyond), 0.1, "A3 c7"))
    sizes: dict[tuple[BranchName, SetName], tuple[int, str]] = {
        ("expr", "train"): (248, "A3 c58"),
        ("expr", "validation"): (70, "A3 c58"),
        ("expr", "test"): (228, "A3 c58"),
        ("va", "validation"): (71, "A3 c72"),
        ("va", "test"): (152, "A3 c72"),
        ("au", "validation"): (105, "A3 c91"),
        ("au", "test"): (141, "A3 c91"),
    }
    for (task, set_name), (size, source) in sizes.items():
        found.append(Statistic(f"{task} {set_name} subjects", size, len(plan.of_set(task, set_name)), 0, source))
    for task, rows, source in (
        ("expr", published.EXPR_TEST_ROWS, "A5 c104"),
        ("au", published.AU_TEST_ROWS, "A5 c205"),
    ):
        frames = sum(subject.frames for subject in plan.of_set(task, "test"))
        found.append(Statistic(f"{task} test frames", rows, frames, 0, source))
    return found


def _count(plan: SimulationPlan) -> tuple[Counter[str], list[np.ndarray], list[int]]:
    """Count labels by name; return also valence and arousal of training frames, and lengths of runs of expressions."""
    counts: Counter[str] = Counter()
    affect, runs = [], []
    for subject in plan.subjects:
        labels, missing = draw_labels(plan, subject), plan.missing(subject)
        for branch, values in labels.branches.items():
            set_name, valid = subject.sets[branch], has_label(branch, values)
            counts[f"{branch} {set_name} used"] += int((valid & ~missing).sum())
            counts[f"{branch} {set_name} missed"] += int((valid & missing).sum())
            shown = values[valid & ~missing]
            if branch == "expr":
                for number, count in enumerate(np.bincount(shown, minlength=len(EXPRESSIONS))):
                    counts[f"expr {set_name} {EXPRESSIONS[number]}"] += int(count)
                starts = np.flatnonzero(np.diff(values, prepend=np.int8(-2)))
                runs += np.diff(starts, append=len(values))[valid[starts]].tolist()
            elif branch == "au":
                for name, count in zip(ACTION_UNITS, shown.sum(axis=0), strict=True):
                    counts[f"au {set_name} {name}"] += int(count)
            elif set_name == "train":
                affect.append(shown)
        if "mtl" in subject.sets:
            set_name = subject.sets["mtl"]
            counts[f"mtl {set_name} rows"] += len(labels.mtl_frames)
            counts[f"mtl {set_name} repeated"] += len(labels.mtl_frames) - len(set(labels.mtl_frames.tolist()))
            for branch in BRANCHES:
                counts[f"mtl {set_name} {branch}"] += int(has_label(branch, labels.mtl[branch]).sum())
    return counts, affect, runs


def _of_labels(plan: SimulationPlan, counts: Counter[str]) -> list[Statistic]:
    # At small scales, limits of short videos matter.
    tolerance, of_counts = (0.03, 0.0) if plan.scale == 1 else (0.2, 0.02)
    found = []
    for (task, set_name), labels in published.LABELS.items():
        for kind, number in (("used", labels.used), ("missed", labels.missed)):
            what = "valid labels with a crop" if kind == "used" else "valid labels without a crop"
            value = round(number * plan.scale)
            name = f"{task} {set_name}: {what}"
            found.append(Statistic(name, value, counts[f"{task} {set_name} {kind}"], of_counts, "A3 c36, c62, c76"))
    for set_name, classes in published.EXPRESSION_COUNTS.items():
        for name, number in zip(EXPRESSIONS, classes, strict=True):
            wanted, source = number * plan.scale, "A3 c38" if set_name == "train" else "A5 c37"
            simulated = counts[f"expr {set_name} {name}"]
            found.append(Statistic(f"expr {set_name}: {name}", wanted, simulated, tolerance, source))
    for name, number in zip(ACTION_UNITS, published.AU_TRAIN_COUNTS, strict=True):
        simulated = counts[f"au train {name}"]
        found.append(Statistic(f"au train: {name}", number * plan.scale, simulated, tolerance, "A3 c78"))
    for set_name in _FIT_SETS:
        rows = published.MTL_ROWS[set_name]
        both, simulated = rows.used + rows.missed, counts[f"mtl {set_name} rows"]
        found.append(Statistic(f"mtl {set_name}: rows", both * plan.scale, simulated, 0.001, "A3 c95"))
        for branch in BRANCHES:
            available = published.MTL_AVAILABLE[set_name][branch] * simulated
            name = f"mtl {set_name}: rows with a valid {branch} label"
            found.append(Statistic(name, available, counts[f"mtl {set_name} {branch}"], 0.15, "A4 c42 (ABAW4)"))
    repeated = published.MTL_REPEATED_NAMES * plan.scale
    simulated = counts["mtl train repeated"] + counts["mtl validation repeated"]
    found.append(Statistic("mtl: repeated names", repeated, simulated, 0.03, "A4 c15, c18 (ABAW4)"))
    rows_of_test = counts["mtl test rows"]
    found.append(Statistic("mtl test: rows", published.MTL_TEST_ROWS * plan.scale, rows_of_test, 0.001, "A3 c113"))
    return found


def _of_processes(plan: SimulationPlan, affect: list[np.ndarray], runs: list[int]) -> list[Statistic]:
    """Return statistics that nobody published: the reader can see what was assumed."""
    values = np.concatenate(affect)
    found = [
        Statistic("expressions: shortest run, frames", None, min(runs), 0, "assumed; 1 and 3 were seen, A3 c36"),
        Statistic("expressions: median run, frames", None, float(np.median(runs)), 0, "assumed"),
        Statistic("expressions: mean run, frames", None, float(np.mean(runs)), 0, "assumed"),
    ]
    for column, name in enumerate(("valence", "arousal")):
        found.append(Statistic(f"{name}: mean", None, float(values[:, column].mean()), 0, "assumed"))
        found.append(Statistic(f"{name}: standard deviation", None, float(values[:, column].std()), 0, "assumed"))
        parts = [one[:, column] for one in affect if len(one) > 60]
        if parts:
            now, later = (np.concatenate([one[side] for one in parts]) for side in (slice(-30), slice(30, None)))
            lagged = np.corrcoef(now, later)[0, 1]
            found.append(Statistic(f"{name}: correlation after 30 frames", None, float(lagged), 0, "assumed"))
    return found


def main() -> None:
    """Print the table as Markdown."""
    scale, seed = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0, int(sys.argv[2]) if len(sys.argv) > 2 else 0
    print("| statistic | published | simulated | tolerance | source |\n|---|---|---|---|---|")
    for one in compare_with_published(plan_simulation(scale, seed)):
        wanted = "-" if one.published is None else f"{one.published:,.0f}"
        got = f"{one.simulated:,.0f}" if one.published is not None else f"{one.simulated:.3g}"
        tolerance = "-" if one.published is None else f"{one.tolerance:.1%}" if one.tolerance else "equal"
        print(f"| {one.name} | {wanted} | {got} | {tolerance} | {one.source} |")


if __name__ == "__main__":
    main()
