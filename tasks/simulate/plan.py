"""The plan of a simulated data set: subjects, sets per task, frames, container counts and missing crops.

At scale 1 all counts of ``published`` are met exactly. Smaller scales have fewer subjects and shorter videos, both by
the square root of the scale.

Assumptions, where nothing is published: the sets of the tasks overlap as far as their sizes allow (``_groups``);
lengths of videos are log-normal; a frame without a crop belongs to a gap, and few subjects have most of the gaps; the
share of valid expression labels varies between subjects.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from data_contracts.errors import InputError
from data_contracts.vocabulary import BRANCHES, BranchName, SetName, TaskName
from tasks.simulate import published

SMALLEST_SCALE = 0.001
# Streams of random numbers of one seed.
_PLAN, _MISSING = 1, 2
_FEWEST_FRAMES = 60
_SETS: tuple[SetName, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class SimulatedSubject:
    """A subject of the plan.

    Attributes:
        number: position in the plan, from 0; determines the subject's random numbers.
        name: stem of the video, with ``_left`` or ``_right`` if the video shows two persons.
        video: stem of the video.
        frames: frames of the video as a decoder returns them: the larger of container count and last crop.
        container_count: frames that the container claims (OpenCV's CAP_PROP_FRAME_COUNT).
        last_crop: number of the last frame with a crop; greater than ``container_count`` in half of the videos.
        missing_count: frames without a crop, those after ``last_crop`` included.
        sets: set of each task; no entry if the subject is not part of the task. All subjects have ``va``.
        labelled: valid labels of each task on frames with a crop.
        labelled_without_crop: valid labels of each task on frames without a crop.
        mtl_rows, mtl_rows_without_crop: rows of the multi-task list, repeated names included.
        mtl_repeated: rows of ``mtl_rows`` that repeat the name of another row.
    """

    number: int
    name: str
    video: str
    frames: int
    container_count: int
    last_crop: int
    missing_count: int
    sets: Mapping[TaskName, SetName]
    labelled: Mapping[BranchName, int] = field(default_factory=dict)
    labelled_without_crop: Mapping[BranchName, int] = field(default_factory=dict)
    mtl_rows: int = 0
    mtl_rows_without_crop: int = 0
    mtl_repeated: int = 0


@dataclass(frozen=True)
class SimulationPlan:
    """All subjects of a simulated data set, sorted by name, and the scale and seed that determine it."""

    scale: float
    seed: int
    subjects: tuple[SimulatedSubject, ...]

    def of_set(self, task: TaskName, set_name: SetName) -> list[SimulatedSubject]:
        """Return the subjects of one set of a task."""
        return [subject for subject in self.subjects if subject.sets.get(task) == set_name]

    @property
    def frames(self) -> int:
        """Frames of all subjects; those of a video with two persons count twice."""
        return sum(subject.frames for subject in self.subjects)

    def missing(self, subject: SimulatedSubject) -> np.ndarray:
        """Return which frames of a subject have no crop, bool [frames]."""
        mask = np.zeros(subject.frames, bool)
        mask[subject.last_crop :] = True
        inside = subject.missing_count - int(mask.sum())
        if inside > 0:
            random = np.random.default_rng([self.seed, _MISSING, subject.number])
            # The last crop itself is never missing.
            allowed = np.arange(subject.frames) < subject.last_crop - 1
            mask[take_runs(random, allowed, inside, 12)] = True
        return mask


@dataclass(frozen=True)
class _Group:
    """Subjects with the same sets. ``frames``: of all of them. ``pairs``: videos of it that show two persons."""

    count: int
    frames: int
    sets: dict[TaskName, SetName]
    pairs: int = 0


def _groups() -> list[_Group]:
    """Return the groups of subjects at scale 1.

    The sizes of the sets are published for EXPR (248, 70, 228), VA (71 and 152; all 564 subjects have it), and AU (105
    and 141; 542 subjects have it). The test set of AU is taken as a part of that of VA, and that of VA as a part of
    that of EXPR; the validation set of EXPR as a part of that of VA, and that of VA as a part of that of AU. The
    multi-task lists have 307 subjects for fitting (A4 c13) and 82 for testing.
    """
    test, validation = published.va_frames("test"), published.va_frames("validation")
    au_test, expr_test = published.AU_TEST_ROWS, published.EXPR_TEST_ROWS
    only_va = validation // 71
    no_au = published.FRAMES - published.AU_FRAMES - (test - au_test)
    no_expr = published.FRAMES - published.EXPR_FRAMES
    au_only = published.au_validation_frames() - validation
    known = [
        _Group(141, au_test, {"expr": "test", "va": "test", "au": "test", "mtl": "test"}, pairs=4),
        _Group(11, test - au_test, {"expr": "test", "va": "test"}),
        _Group(76, expr_test - test, {"expr": "test", "va": "train", "au": "train"}, pairs=2),
        _Group(70, validation - only_va, dict.fromkeys(("expr", "va", "au", "mtl"), "validation"), pairs=2),
        _Group(1, only_va, {"expr": "train", "va": "validation", "au": "validation", "mtl": "validation"}),
        _Group(29, au_only - au_only // 6, {"expr": "train", "va": "train", "au": "validation"}),
        _Group(5, au_only // 6, {"expr": "train", "va": "train", "au": "validation", "mtl": "train"}),
        _Group(11, no_au, {"expr": "train", "va": "train", "mtl": "train"}),
        _Group(18, no_expr, {"va": "train", "au": "train", "mtl": "train"}),
    ]
    rest = published.SUBJECTS - sum(group.count for group in known)
    frames = published.FRAMES - sum(group.frames for group in known)
    everything: dict[TaskName, SetName] = dict.fromkeys(("expr", "va", "au", "mtl"), "train")
    pairs = published.TWO_PERSON_VIDEOS - sum(group.pairs for group in known)
    return [*known, _Group(rest, frames, everything, pairs=pairs)]


def plan_simulation(scale: float, seed: int) -> SimulationPlan:
    """Plan a data set. ``scale``: share of the frames of Aff-Wild2, ``SMALLEST_SCALE`` to 1.

    Raises:
        InputError: the scale is out of range.
    """
    if not SMALLEST_SCALE <= scale <= 1:
        raise InputError(f"--scale {scale}: expected {SMALLEST_SCALE} to 1")
    random = np.random.default_rng([seed, _PLAN])
    groups = [_scaled(group, scale) for group in _groups()]
    pairs = sum(group.pairs for group in groups)
    total_paired = published.FRAMES - published.CONTAINER_FRAMES
    total_paired -= sum(low * count for low, _, count in published.CROPS_BEYOND_CONTAINER if low > 0)
    paired = _lengths(random, round(total_paired * scale), pairs)
    videos: list[tuple[_Group, int, bool]] = []
    for group in groups:
        own, paired = paired[: group.pairs], paired[group.pairs :]
        single = _lengths(random, group.frames - 2 * sum(own), group.count - 2 * group.pairs)
        videos += [(group, frames, True) for frames in own] + [(group, frames, False) for frames in single]
    order = random.permutation(len(videos))
    beyond = _crops_beyond_container(random, [videos[at][1] for at in order], scale)
    subjects: list[SimulatedSubject] = []
    for number, (at, crops_beyond) in enumerate(zip(order, beyond, strict=True), start=1):
        group, frames, is_pair = videos[at]
        stem = f"simulated{number:03d}"
        container = frames - max(crops_beyond, 0)
        for side in ("_left", "_right") if is_pair else ("",):
            last = container + crops_beyond
            one = SimulatedSubject(len(subjects), stem + side, stem, frames, container, last, 0, group.sets)
            subjects.append(one)
    subjects = _with_counts(random, subjects, scale)
    return SimulationPlan(scale, seed, tuple(subjects))


def take_runs(random: np.random.Generator, allowed: np.ndarray, count: int, mean_run: float) -> np.ndarray:
    """Return the indices of ``count`` allowed positions, ascending, in whole runs of random lengths.

    ``allowed``: bool [n]. ``mean_run``: mean length of a run, in allowed positions; runs are longer where the others
    are too few for gaps of a tenth of it.
    """
    positions = np.flatnonzero(allowed)
    others = len(positions) - count
    if count <= 0 or others <= 0:
        return positions[: max(count, 0)]
    runs = min(round(count / mean_run), round(others / (mean_run / 10)), count, others + 1)
    runs = max(runs, 1)
    gaps = _random_parts(random, others + 2, runs + 1) - np.array([1] + [0] * (runs - 1) + [1])
    starts = np.cumsum(gaps[:-1])
    return positions[np.arange(count) + np.repeat(starts, _random_parts(random, count, runs))]


def _random_parts(random: np.random.Generator, total: int, count: int) -> np.ndarray:
    """Split a number into whole parts of at least 1, every split being equally likely: int64 [count]."""
    cuts = np.sort(random.choice(total - 1, count - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def split_total(total: int, weights: Sequence[float], limits: Sequence[int]) -> list[int]:
    """Split a number into whole parts in proportion to the weights, none above its limit.

    The sum is smaller than ``total`` only if the limits are.
    """
    limit, weight = np.asarray(limits, np.int64), np.maximum(np.asarray(weights, float), 1e-12)
    parts = np.zeros(len(limit), np.int64)
    remaining = min(int(total), int(limit.sum()))
    while remaining > 0:
        is_open = parts < limit
        share = np.where(is_open, weight, 0)
        share = remaining * share / share.sum()
        added = np.minimum(np.floor(share).astype(np.int64), limit - parts)
        if not added.any():
            largest = np.argsort(-np.where(is_open, share, -1), kind="stable")[:remaining]
            added[largest[is_open[largest]]] = 1
        parts += added
        remaining -= int(added.sum())
    return [int(part) for part in parts]


def _scaled(group: _Group, scale: float) -> _Group:
    factor = math.sqrt(scale)
    count = max(round(group.count * factor), 1)
    pairs = min(round(group.pairs * factor) or (group.pairs > 3), count // 2)
    return _Group(count, max(round(group.frames * scale), count * _FEWEST_FRAMES), group.sets, int(pairs))


def _lengths(random: np.random.Generator, total: int, count: int) -> list[int]:
    """Return log-normal lengths with the given sum, each at least ``_FEWEST_FRAMES`` where the sum allows it."""
    weights = random.lognormal(0, 0.8, count)
    fewest = min(_FEWEST_FRAMES, total // max(count, 1))
    more = split_total(total - fewest * count, list(weights), [total] * count)
    return [fewest + one for one in more]


def _crops_beyond_container(random: np.random.Generator, frames: Sequence[int], scale: float) -> list[int]:
    """Return last crop minus container count for each video, with the published counts; negative: trailing gap."""
    kinds = published.CROPS_BEYOND_CONTAINER
    parts = split_total(len(frames), [count for *_, count in kinds], [len(frames)] * len(kinds))
    drawn: list[int] = []
    for (low, high, _), count in zip(kinds, parts, strict=True):
        values = [int(value) for value in random.integers(low, high + 1, count)]
        if low < -100 and values:
            values[0] = low
        drawn += values
    random.shuffle(drawn)
    # Videos of small scales are shorter, and so are their gaps; the largest gaps belong to videos that are long enough.
    drawn = [-math.ceil(-one * math.sqrt(scale)) if one < 0 else one for one in drawn]
    fits = [max(one, -(length // 4)) if one < 0 else one for one, length in zip(drawn, frames, strict=True)]
    if scale == 1 and (lost := published.CROPS_BEYOND_CONTAINER[-1][0]) not in fits:
        fits[int(np.argmax(frames))], fits[drawn.index(lost)] = lost, fits[int(np.argmax(frames))]
    return fits


@dataclass(frozen=True)
class _MtlRows:
    """Rows of the multi-task list of a subject; see ``SimulatedSubject``. None of a test subject that is not listed."""

    rows: int = 0
    without_crop: int = 0
    repeated: int = 0


def _with_counts(random: np.random.Generator, subjects: list[SimulatedSubject], scale: float) -> list[SimulatedSubject]:
    """Distribute missing crops, valid labels and multi-task rows over the subjects."""
    trailing = [one.frames - one.last_crop for one in subjects]
    missing = [0] * len(subjects)
    for set_name in _SETS:
        mine = [at for at, one in enumerate(subjects) if one.sets["va"] == set_name]
        gaps = sum(trailing[at] for at in mine)
        weights = [subjects[at].frames * random.lognormal(0, 1.6) for at in mine]
        limits = [subjects[at].frames // 3 for at in mine]
        wanted = max(round(published.missing_frames(set_name) * scale) - gaps, 0)
        for at, more in zip(mine, split_total(wanted, weights, limits), strict=True):
            missing[at] = trailing[at] + more
    present = [one.frames - count for one, count in zip(subjects, missing, strict=True)]
    used: list[dict[BranchName, int]] = [{} for _ in subjects]
    missed: list[dict[BranchName, int]] = [{} for _ in subjects]
    for branch in BRANCHES:
        for set_name in ("train", "validation"):
            labels = published.LABELS[branch, set_name]
            mine = [at for at, one in enumerate(subjects) if one.sets.get(branch) == set_name]
            spread = random.lognormal(0, 0.5 if branch == "expr" else 0.02, len(mine))
            weights = [present[at] * share for at, share in zip(mine, spread, strict=True)]
            with_crop = split_total(round(labels.used * scale), weights, [present[at] for at in mine])
            limits = [missing[at] for at in mine]
            # Annotators see no crops: the share of valid labels is the same without them.
            weights = [missing[at] * part / max(present[at], 1) for at, part in zip(mine, with_crop, strict=True)]
            without = split_total(round(labels.missed * scale), weights, limits)
            for at, part, no_crop in zip(mine, with_crop, without, strict=True):
                used[at][branch], missed[at][branch] = part, no_crop
    mtl = _mtl_rows(subjects, present, missing, scale)
    return [
        replace(
            one,
            missing_count=missing[at],
            sets=one.sets if at in mtl else {task: name for task, name in one.sets.items() if task != "mtl"},
            labelled=used[at],
            labelled_without_crop=missed[at],
            mtl_rows=rows.rows,
            mtl_rows_without_crop=rows.without_crop,
            mtl_repeated=rows.repeated,
        )
        for at, one in enumerate(subjects)
        for rows in [mtl.get(at, _MtlRows())]
    ]


def _mtl_rows(
    subjects: Sequence[SimulatedSubject], present: Sequence[int], missing: Sequence[int], scale: float
) -> dict[int, _MtlRows]:
    """Return the rows of the subjects in the multi-task lists, by position. Only some test subjects are listed."""
    found: dict[int, _MtlRows] = {}
    for set_name in _SETS:
        mine = [at for at, one in enumerate(subjects) if one.sets.get("mtl") == set_name]
        if test := set_name == "test":
            mine = mine[: max(round(published.MTL_TEST_SUBJECTS * math.sqrt(scale)), 1)]
        rows = published.MTL_TEST_ROWS if test else published.MTL_ROWS[set_name].used
        repeated = round(rows * scale * (published.MTL_TEST_REPEATED if test else published.MTL_REPEATED))
        parts = split_total(round(rows * scale) - repeated, [present[at] for at in mine], [present[at] for at in mine])
        again = split_total(repeated, parts, parts)
        without = [0] * len(mine)
        if not test:
            limits = [missing[at] for at in mine]
            without = split_total(round(published.MTL_ROWS[set_name].missed * scale), limits, limits)
        for at, once, twice, no_crop in zip(mine, parts, again, without, strict=True):
            found[at] = _MtlRows(once + twice + no_crop, no_crop, twice)
    return found
