"""The timeline of a video: what heads say about each person in each frame, before and after smoothing, and labels.

Values come from a file of predictions, or from outputs and heads in the store. Labels and outputs of subjects are
assigned to persons by the boxes of their faces.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_contracts.details.datasets import LabelsDetails
from data_contracts.details.heads import HeadDetails
from data_contracts.errors import InputError
from data_contracts.schemas.faces import BOX_NAMES
from data_contracts.schemas.labels import LABEL_COLUMNS
from data_contracts.schemas.outputs import OUTPUT_COLUMNS
from data_contracts.store.manifest import StoredUnit, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import (
    ACTION_UNITS,
    BRANCHES,
    BRANCHES_OF_TASK,
    DIMENSIONS,
    EXPRESSIONS,
    BranchName,
)
from tasks.results.prediction_folder import BranchSettings, prediction_files

if TYPE_CHECKING:
    from models.decisions.postprocessing import PostProcessing
    from tasks.fit.head_selection import ServingHead

_COLUMNS_OF_DECISIONS: dict[BranchName, tuple[str, ...]] = {
    "expr": ("expression",),
    "va": DIMENSIONS,
    "au": ACTION_UNITS,
}
# Faces of subjects are faces of a person if at least this share of their boxes is equal.
_SAME_FACES = 0.5


@dataclass(frozen=True, eq=False)
class BranchValues:
    """What is said about n frames in one branch; NaN where nothing is.

    Attributes:
        decisions: float32; expression classes ``[n, 1]``, valence and arousal ``[n, 2]``, or active units ``[n, 12]``.
        probabilities: float32 ``[n, 8]`` or ``[n, 12]``; None for valence and arousal, and for labels.
    """

    decisions: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None = None


Values = Mapping[BranchName, BranchValues]


@dataclass(frozen=True, eq=False)
class PersonTimeline:
    """One person of a video, in consecutive frames.

    Attributes:
        number: of the person in the video, from 1.
        subject: name of the subject of labels, if it is known.
        first_frame: number of the first of n frames.
        has_face: bool ``[n]``.
        boxes_px: float32 ``[n, 4]``, x1, y1, x2, y2 in the displayed frame; NaN where unknown.
        smoothed, raw, labels: values after and before smoothing, and annotations. Branches may be missing.
        is_short: whether the person is seen in few frames.
    """

    number: int
    subject: str | None
    first_frame: int
    has_face: NDArray[np.bool_]
    boxes_px: NDArray[np.float32]
    smoothed: Values
    raw: Values = field(default_factory=dict)
    labels: Values = field(default_factory=dict)
    is_short: bool = False

    @property
    def name(self) -> str:
        """The person's name for people."""
        return f"Person {self.number}"

    @property
    def frames(self) -> NDArray[np.int64]:
        """The numbers of the frames, int64 ``[n]``."""
        return np.arange(self.first_frame, self.first_frame + len(self.has_face))


@dataclass(frozen=True, eq=False)
class Timeline:
    """All persons of a video.

    Attributes:
        seconds: float64 ``[frames]``, time since the first frame; None if it is unknown.
        source: where the values come from, a line for people.
        settings: a line for each branch: its head and smoothing.
        heads: names of the heads.
        faces: variant of the faces that the heads saw.
    """

    video: str
    frame_count: int
    seconds: NDArray[np.float64] | None
    persons: Sequence[PersonTimeline]
    source: str
    settings: Sequence[str]
    heads: Sequence[str] = ()
    faces: str | None = None


def read_predicted(store: Store, folder: Store, video: str) -> Timeline | None:
    """Return the timeline of the predictions of a video in a folder; None if the folder has none.

    Raises:
        InputError: the file is not one of predictions.
    """
    name = prediction_files(video)[0]
    try:
        table = pq.read_table(pa.BufferReader(folder.read_bytes(name)))
        settings = json.loads((table.schema.metadata or {}).get(b"settings", b"{}"))
        branches = {b: BranchSettings.from_json(settings[b]) for b in BRANCHES if settings.get(b)}
        frame_count = int(pc.max(table["frame"]).as_py() or 0)
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{folder.locate(name)}: expected predictions that score wrote, got {type(error).__name__}: {error}; "
            "score the video again"
        ) from error
    persons = [_person_of(rows, number) for number, rows in _split_persons(table)]
    return Timeline(
        video=video,
        frame_count=frame_count,
        seconds=_seconds_of(table, frame_count),
        persons=_with_raw_values(store, video, persons, branches, people=settings.get("people", "main")),
        source=f"predictions in {folder.root}",
        settings=[f"{branch}: {describe_settings(one)}" for branch, one in branches.items()],
        heads=[one.head for one in branches.values()],
        faces=next((one.faces for one in branches.values()), None),
    )


def describe_settings(one: BranchSettings) -> str:
    """Return the head and the smoothing of a branch, for people."""
    # Files of earlier versions have the width apart from the method.
    width = "" if one.window_frames == 1 else f" of {one.window_frames} frames"
    return f"{one.head}, smoothing {one.smoothing}{width}"


def _split_persons(table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """Yield (number, rows in order of frames). Files of earlier versions have one person."""
    if "person" not in table.column_names:
        yield 1, table
        return
    for number in pc.unique(table["person"].drop_null()).to_pylist():
        yield number, table.filter(pc.equal(table["person"], number)).sort_by("frame")


def _person_of(rows: pa.Table, number: int) -> PersonTimeline:
    frame = rows["frame"].to_numpy()
    first, count = int(frame[0]), int(frame[-1] - frame[0] + 1)

    def spread(columns: Sequence[str]) -> NDArray[np.float32]:
        values = np.full((count, len(columns)), np.nan, np.float32)
        for place, name in enumerate(columns):
            values[frame - first, place] = _numbers(rows[name])
        return values

    has_face = np.zeros(count, bool)
    has_face[frame - first] = rows["has_face"].to_numpy()
    known = [b for b in BRANCHES if rows[_COLUMNS_OF_DECISIONS[b][0]].null_count < len(rows)]
    return PersonTimeline(
        number,
        None,
        first,
        has_face,
        spread(BOX_NAMES) if BOX_NAMES[0] in rows.column_names else np.full((count, 4), np.nan, np.float32),
        {
            branch: BranchValues(
                spread(_COLUMNS_OF_DECISIONS[branch]),
                None if branch == "va" else spread([column.name for column in OUTPUT_COLUMNS[branch]]),
            )
            for branch in known
        },
        is_short="is_short_track" in rows.column_names and bool(rows["is_short_track"][0].as_py()),
    )


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """Return values as float32, NaN for null; names of expressions as their classes."""
    if pa.types.is_string(column.type) or pa.types.is_dictionary(column.type):
        column = pc.index_in(column.cast(pa.string()), value_set=pa.array(EXPRESSIONS))
    return pc.cast(column, pa.float32()).fill_null(float("nan")).to_numpy()


def _seconds_of(table: pa.Table, frame_count: int) -> NDArray[np.float64] | None:
    if table["time_seconds"].null_count or not frame_count:
        return None
    seconds = np.full(frame_count, np.nan)
    seconds[table["frame"].to_numpy() - 1] = table["time_seconds"].to_numpy()
    return None if np.isnan(seconds).any() else seconds


def _with_raw_values(
    store: Store,
    video: str,
    persons: Sequence[PersonTimeline],
    branches: Mapping[BranchName, BranchSettings],
    *,
    people: str,
) -> list[PersonTimeline]:
    """Add values before smoothing, from the outputs in the store that the predictions were made from.

    They are those of the head; a gate does not change them.
    """
    from models.decisions.postprocessing import BranchRule, Scaling

    raw: dict[int, dict[BranchName, BranchValues]] = {}
    for branch, one in branches.items():
        if one.smoothing == "none":
            continue
        rule = BranchRule(
            class_bias=tuple(one.class_bias.values()) if one.class_bias else (0.0,) * len(EXPRESSIONS),
            thresholds=tuple(one.thresholds.values()) if one.thresholds else (0.5,) * len(ACTION_UNITS),
            scaling=Scaling(one.slopes, one.offsets or ()) if one.slopes else None,
        )
        for number, (frame, outputs) in _read_outputs(store, video, one, branch, people=people).items():
            person = next((person for person in persons if person.number == number), None)
            if person is not None:
                placed = rule.smooth(branch, _place(outputs, frame, person), frames_per_second=1)
                raw.setdefault(number, {})[branch] = _values_of(branch, placed, rule.decide(branch, placed))
    return [replace(person, raw=raw.get(person.number, {})) for person in persons]


def _read_outputs(
    store: Store, video: str, settings: BranchSettings, branch: BranchName, *, people: str
) -> dict[int, tuple[NDArray[np.integer], NDArray[np.float32]]]:
    """Return person -> (frames, outputs float32 [n, K]) of the head that made predictions; empty if they are gone."""
    dataset, item = ("outputs", "subject") if people == "main" else ("person_outputs", "video")
    key = UnitKey(dataset, (("head", settings.head), ("source", settings.faces), (item, video)))
    names = [column.name for column in OUTPUT_COLUMNS[branch]]
    manifest = store.manifests(dataset, head=settings.head, source=settings.faces).get(key)
    if manifest is None:
        return {}
    table = store.read_unit(key, manifest)
    frame, values = table["frame"].to_numpy(), np.stack([_numbers(table[name]) for name in names], axis=1)
    if people == "main":
        return {1: (frame, values)}
    person = table["person"].to_numpy()
    return {int(one): (frame[person == one], values[person == one]) for one in np.unique(person)}


def _place(values: NDArray[np.float32], frame: NDArray[np.integer], person: PersonTimeline) -> NDArray[np.float32]:
    """Return the rows of some frames in the frames of a person; NaN for the others."""
    placed = np.full((len(person.has_face), values.shape[1]), np.nan, np.float32)
    places = frame - person.first_frame
    inside = (places >= 0) & (places < len(placed))
    placed[places[inside]] = values[inside]
    return placed


def _values_of(branch: BranchName, outputs: NDArray[np.float32], decided: NDArray[np.generic]) -> BranchValues:
    """Return decisions and probabilities for outputs [n, K]; NaN where the outputs are."""
    decisions = decided.astype(np.float32).reshape(len(outputs), -1)
    decisions[np.isnan(outputs[:, 0])] = np.nan
    return BranchValues(decisions, None if branch == "va" else outputs)


def compute_timeline(
    store: Store, video: str, subjects: Sequence[str], heads: Sequence["ServingHead"]
) -> Timeline | None:
    """Return the timeline of the subjects of a video from the outputs of heads; None without outputs."""
    from tasks.fit.stored_heads import rule_of

    persons: dict[str, PersonTimeline] = {}
    lines, faces = [], None
    for serving in heads:
        rule = rule_of(store, serving)
        for key in store.manifests("outputs", head=serving.head.name):
            subject, faces = key.value("subject"), faces or key.value("source")
            if subject in subjects and key.value("source") == faces:
                found = _person_from_outputs(store, key, rule, serving, number=1 + subjects.index(subject))
                known = persons.get(subject, found)
                if len(known.has_face) == len(found.has_face):
                    both = {**known.smoothed, **found.smoothed}, {**known.raw, **found.raw}
                    persons[subject] = replace(known, smoothed=both[0], raw=both[1])
        smoothings = ", ".join(dict.fromkeys(rule.rules[branch].describe_smoothing() for branch in serving.branches))
        lines.append(f"{', '.join(serving.branches)}: {serving.head.name}, smoothing {smoothings}")
    if not persons:
        return None
    ordered = sorted(persons.values(), key=lambda person: person.number)
    renumbered = [replace(person, number=n) for n, person in enumerate(ordered, start=1)]
    count = max(len(person.has_face) for person in renumbered)
    names = [serving.head.name for serving in heads]
    source = f"outputs of heads in {store.root}"
    return Timeline(video, count, None, renumbered, source, lines, heads=names, faces=faces)


def _person_from_outputs(
    store: Store, key: UnitKey, rule: "PostProcessing", serving: "ServingHead", *, number: int
) -> PersonTimeline:
    from models.decisions.smoothing import Smoothing
    from tasks.fit.predict_outputs import read_subject
    from tasks.fit.subject_features import frame_rates

    unit = StoredUnit(key, store.manifests("outputs", head=key.value("head"), source=key.value("source"))[key])
    name, branches = key.value("subject"), BRANCHES_OF_TASK[HeadDetails.of(serving.head).task]
    rate = frame_rates(store, [name])[name]
    subject = read_subject(store, unit, branches, frames_per_second=rate, has_gate=rule.has_gate)
    present, smoothed = subject.present, subject.smooth(rule)
    decisions = subject.decide(rule, smoothed)
    plain = {b: replace(one, smoothings=(Smoothing(),), gate_level=None) for b, one in rule.rules.items()}
    raw = {b: one.smooth(b, subject.outputs[b], frames_per_second=rate) for b, one in plain.items()}
    unknown = np.full(4, np.nan, np.float32)
    return PersonTimeline(
        number,
        name,
        1,
        present,
        np.tile(unknown, (len(present), 1)),
        {b: _values_of(b, np.where(present[:, None], smoothed[b], np.nan), decisions[b]) for b in serving.branches},
        {b: _values_of(b, raw[b], plain[b].decide(b, raw[b])) for b in serving.branches if rule.rules[b].is_smoothed},
    )


def with_labels(store: Store, timeline: Timeline) -> Timeline:
    """Add the labels of the persons whose subjects are known."""
    persons = [
        replace(person, labels=_labels_of(store, person.subject, person)) if person.subject else person
        for person in timeline.persons
    ]
    return replace(timeline, persons=persons)


def _labels_of(store: Store, subject: str, person: PersonTimeline) -> dict[BranchName, BranchValues]:
    """Return the labels of a subject. The lists of single tasks win over those of mtl, which have fewer frames."""
    labels: dict[BranchName, BranchValues] = {}
    units = store.manifests("labels").items()
    for key, manifest in sorted(units, key=lambda unit: unit[0].value("task") == "mtl"):
        if subject not in LabelsDetails.of(manifest).subjects:
            continue
        rows = store.read_unit(key, manifest)
        rows = rows.filter(pc.equal(rows["subject"], subject))
        for branch in BRANCHES:
            values = np.stack([_numbers(rows[column.name]) for column in LABEL_COLUMNS[branch]], axis=1)
            if branch not in labels and not np.isnan(values).all():
                labels[branch] = BranchValues(_place(values, rows["frame"].to_numpy(), person))
    return labels
