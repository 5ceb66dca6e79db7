"""Stage ``predict_persons``: predict probabilities or values for every person in a video with a head.

A person is one sequence from the first to the last face, wherever the features of its faces are stored.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_contracts.details.datasets import FacesDetails, OutputsDetails
from data_contracts.details.heads import HeadDetails
from data_contracts.schemas.outputs import OUTPUT_COLUMNS, person_outputs_dataset
from data_contracts.store.bundles import Bundle
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import Manifest, StoredUnit, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import BRANCHES_OF_TASK, FACE_FOUND, NO_FACE, BranchName
from models.decisions.blending import AnyHead, blend
from models.heads.sequences import SubjectSequence
from tasks.extract.embed_faces import SubjectFaces
from tasks.fit.predict_outputs import output_columns
from tasks.fit.stored_heads import cached_head, check_head_fits, members_of, needs_sequences, weights_for
from tasks.fit.subject_features import all_finite, nominal_seconds, read_seconds, to_vectors, zeros
from tasks.units import Product, Unit

CODE_VERSION = 1


@dataclass(frozen=True)
class PredictPersonsArgs:
    """What a head predicts the persons of one video from.

    Attributes:
        head_folder, head_fingerprint: of the head's bundle.
        persons, subjects: units that say which face is whose.
        features: units of the video's subjects; empty if ``other_features`` hold all faces.
        other_features: units of the other faces, or those of all faces (``face_features``).
        frames: unit with the time stamps; None if the head needs none.
        frame_count: number of frames of the video.
        members: of a blend of heads on several backbones, each with its features; else empty.
        weights: of these members, branch -> weight of each.
    """

    head_folder: str
    head_fingerprint: str
    persons: StoredUnit
    subjects: StoredUnit
    features: tuple[StoredUnit, ...]
    other_features: tuple[StoredUnit, ...]
    frames: StoredUnit | None
    frame_count: int
    members: "tuple[PredictPersonsArgs, ...]" = ()
    weights: dict[BranchName, list[float]] = field(default_factory=dict)


def plan_predict_persons(
    store: Store,
    subjects: Sequence[SubjectFaces],
    *,
    source: str,
    others: Mapping[str, Mapping[str, Sequence[StoredUnit]]],
    heads: Sequence[Bundle],
) -> list[Unit[PredictPersonsArgs]]:
    """Plan one unit per head and video with these subjects. Their features and persons must exist.

    Args:
        others: variant of the features -> video -> units of ``other_features``; of ``face_features`` if no crops are
            stored.

    Raises:
        InputError: a head was fitted on features of another backbone, its kind is unknown, or see ``members_of``.
    """
    inputs = _Inputs.find(store, source, others)
    names: dict[str, list[SubjectFaces]] = {}
    for one in subjects:
        names.setdefault(one.video, []).append(one)
    units = []
    for head in heads:
        details, members = HeadDetails.of(head), members_of(store, head)
        is_mixed = len({HeadDetails.of(one).backbone for one in members}) > 1
        for video, of_video in names.items():
            arguments = inputs.arguments(head, of_video, needs_times=needs_sequences(members or [head]))
            if is_mixed:
                of_members = [inputs.arguments(one, of_video, needs_times=needs_sequences([one])) for one in members]
                arguments = replace(arguments, members=tuple(of_members), weights=weights_for(details))
            place = (("head", head.name), ("source", source), ("video", video))
            units.append(Unit(UnitKey("person_outputs", place), _fingerprint(arguments), arguments))
    return units


@dataclass(frozen=True)
class _Inputs:
    """Units that persons are predicted from; ``features``: variant -> subject -> units."""

    source: str
    persons: Mapping[UnitKey, Manifest]
    frames: Mapping[UnitKey, Manifest]
    features: Mapping[str, Mapping[str, Sequence[StoredUnit]]]
    others: Mapping[str, Mapping[str, Sequence[StoredUnit]]]

    @classmethod
    def find(cls, store: Store, source: str, others: Mapping[str, Mapping[str, Sequence[StoredUnit]]]) -> "_Inputs":
        features: dict[str, dict[str, list[StoredUnit]]] = {variant: {} for variant in others}
        for variant, found in features.items():
            for key, manifest in store.manifests("features", backbone=variant, source=source).items():
                found.setdefault(key.value("subject"), []).append(StoredUnit(key, manifest))
        return cls(source, store.manifests("persons", source=source), store.manifests("frames"), features, others)

    def arguments(self, head: Bundle, subjects: Sequence[SubjectFaces], *, needs_times: bool) -> PredictPersonsArgs:
        """Return the arguments of one head, which is no blend of several backbones, for the subjects of a video."""
        variant = HeadDetails.of(head).backbone
        for backbone in [variant] if variant in self.others else self.others:
            check_head_fits(head, backbone)
        video, chosen_by = subjects[0].video, subjects[0].chosen_by
        assert chosen_by is not None
        persons = UnitKey("persons", (("source", self.source), ("video", video)))
        times = UnitKey("frames", (("video", video),))
        others = tuple(self.others[variant].get(video, ()))
        has_all = any(key.dataset == "face_features" for key, _ in others)
        return PredictPersonsArgs(
            head.folder,
            head.fingerprint,
            StoredUnit(persons, self.persons[persons]),
            chosen_by,
            () if has_all else tuple(unit for one in subjects for unit in self.features[variant][one.subject]),
            others,
            StoredUnit(times, self.frames[times]) if needs_times and times in self.frames else None,
            sum(FacesDetails.of(manifest).frame_count for _, manifest in subjects[0].segments),
        )


def _fingerprint(given: PredictPersonsArgs) -> str:
    # Of a blend on several backbones, the features are those of all members.
    more = {"members": [_fingerprint(one) for one in given.members]} if given.members else {}
    return fingerprint(
        stage="predict_persons",
        version=CODE_VERSION,
        head=given.head_fingerprint,
        persons=given.persons.manifest.identity,
        features=[one.manifest.identity for one in (*given.features, *given.other_features)],
        frames=given.frames.manifest.identity if given.frames else None,
        **more,
    )


def compute(store: Store, unit: Unit[PredictPersonsArgs]) -> Product:
    """Predict the outputs of all persons in one video. Frames of a person without a face have none."""
    given = unit.arguments
    head, details = cached_head(store.url, given.head_folder, given.head_fingerprint)
    dataset = person_outputs_dataset(BRANCHES_OF_TASK[details.task], has_backbone=bool(details.gate_classes))
    product = Product(dataset, [])
    product.details = OutputsDetails(frame_count=given.frame_count)
    product.tables = _tables(store, given, head, details, product)
    return product


@dataclass(frozen=True)
class _Faces:
    """The faces of a video, in order: frame, rank in the frame and person, int ``[n]``."""

    frame: NDArray[np.integer]
    rank: NDArray[np.integer]
    person: NDArray[np.integer]

    @functools.cached_property
    def _order(self) -> NDArray[np.int64]:
        return self.frame.astype(np.int64) << 16 | self.rank

    def rows_of(self, frame: NDArray[np.integer], rank: NDArray[np.integer]) -> NDArray[np.intp]:
        """Return the rows of these faces, which must exist."""
        return np.searchsorted(self._order, frame.astype(np.int64) << 16 | rank)


def _read_faces(store: Store, persons: StoredUnit) -> _Faces:
    table = store.read_unit(*persons)
    return _Faces(*(table[name].to_numpy() for name in ("frame", "face", "person")))


def _tables(
    store: Store, given: PredictPersonsArgs, head: AnyHead, details: HeadDetails, product: Product
) -> Iterator[pa.Table]:
    faces = _read_faces(store, given.persons)
    if not len(faces.frame):
        return
    for one in _blend(store, given, faces) if given.members else _predict(store, given, head, faces):
        number, first = int(faces.person[one.rows[0]]), int(faces.frame[one.rows[0]])
        product.counts[FACE_FOUND] += int(one.has_face.sum())
        product.counts[NO_FACE] += int((~one.has_face).sum())
        columns = {
            "person": pa.array(np.full(len(one.has_face), number, np.int32)),
            "frame": pa.array(np.arange(first, first + len(one.has_face), dtype=np.int32)),
            "has_face": pa.array(one.has_face),
        }
        yield pa.table(columns | output_columns(one.outputs, one.logits, details, one.has_face))


class _Person(NamedTuple):
    """The predicted frames of a person, from the first to the last face.

    Attributes:
        rows: of the person's faces, int [n].
        has_face: bool [T].
        outputs: branch -> [T, K].
        logits: of the backbone, [T, C]; None: of a blend.
    """

    rows: NDArray[np.intp]
    has_face: NDArray[np.bool_]
    outputs: dict[BranchName, np.ndarray]
    logits: np.ndarray | None


def _predict(store: Store, given: PredictPersonsArgs, head: AnyHead, faces: _Faces) -> Iterator[_Person]:
    """Yield the predictions of each person, in their order."""
    by_person = np.argsort(faces.person, kind="stable")
    rows_of_person = np.split(by_person, np.flatnonzero(np.diff(faces.person[by_person])) + 1)
    predict = _predict_rows if head.works_on == "rows" else _predict_sequences
    return predict(store, given, head, faces, rows_of_person)


def _blend(store: Store, given: PredictPersonsArgs, faces: _Faces) -> Iterator[_Person]:
    """Yield the same with the weighted means of heads on several backbones."""
    of_members = []
    for one in given.members:
        head, _ = cached_head(store.url, one.head_folder, one.head_fingerprint)
        of_members.append(_predict(store, one, head, faces))
    for found in zip(*of_members, strict=True):
        members = [(one.has_face, one.outputs) for one in found]
        yield _Person(found[0].rows, *blend(members, given.weights, len(found[0].has_face)), None)


def _predict_rows(
    store: Store, given: PredictPersonsArgs, head: AnyHead, faces: _Faces, rows_of_person: list[NDArray[np.intp]]
) -> Iterator[_Person]:
    """Predict all faces of a head that predicts face by face; see ``_predict``."""
    count = len(faces.frame)
    is_known = np.zeros(count, bool)
    outputs = {b: np.zeros((count, len(OUTPUT_COLUMNS[b])), np.float32) for b in head.config.branches}
    logits = np.zeros((count, head.config.logits_size), np.float32)
    for rows, embeddings, block_logits in _blocks(store, given, head, faces):
        is_known[rows], logits[rows] = True, block_logits
        seconds = nominal_seconds(faces.frame[rows])
        sequence = SubjectSequence(embeddings, block_logits, np.ones(len(rows), bool), seconds)
        for branch, values in head.predict_sequence(sequence).items():
            outputs[branch][rows] = values
    for rows in rows_of_person:
        places = faces.frame[rows] - faces.frame[rows[0]]
        frames = int(places[-1]) + 1
        has_face = np.zeros(frames, bool)
        has_face[places] = is_known[rows]
        of_person = {branch: _place(values[rows], places, frames) for branch, values in outputs.items()}
        yield _Person(rows, has_face, of_person, _place(logits[rows], places, frames))


def _place(values: np.ndarray, places: NDArray[np.integer], count: int) -> np.ndarray:
    """Return rows [count, K] with values [n, K] at some places, and zeros at the others."""
    placed = np.zeros((count, values.shape[1]), np.float32)
    placed[places] = values
    return placed


def _predict_sequences(
    store: Store, given: PredictPersonsArgs, head: AnyHead, faces: _Faces, rows_of_person: list[NDArray[np.intp]]
) -> Iterator[_Person]:
    """Predict with a head whose outputs depend on other frames. One person is in memory at a time."""
    seconds = read_seconds(store, given.frames, given.frame_count)
    for rows in rows_of_person:
        first, last = int(faces.frame[rows[0]]), int(faces.frame[rows[-1]])
        count = last - first + 1
        has_face = np.zeros(count, bool)
        sizes = head.config.embedding_size, head.config.logits_size
        embeddings, logits = zeros((count, sizes[0]), np.float16), zeros((count, sizes[1]), np.float32)
        for found, block, block_logits in _blocks(store, given, head, faces, first=first, last=last):
            is_persons = faces.person[found] == faces.person[rows[0]]
            places = faces.frame[found[is_persons]] - first
            embeddings[places], logits[places], has_face[places] = block[is_persons], block_logits[is_persons], True
        sequence = SubjectSequence(embeddings, logits, has_face, seconds[first - 1 : last])
        yield _Person(rows, has_face, head.predict_sequence(sequence), logits)


def _blocks(
    store: Store, given: PredictPersonsArgs, head: AnyHead, faces: _Faces, *, first: int = 1, last: int | None = None
) -> Iterator[tuple[NDArray[np.intp], np.ndarray, np.ndarray]]:
    """Yield blocks of (rows, embeddings float16 [n, D], logits float32 [n, C]) of the faces in a range of frames.

    Embeddings that the head does not use are not read: the array is a view of one zero.

    Raises:
        InputError: values are not finite; the next run computes them again.
    """
    with_embeddings = any(branch.features != "scores" for branch in head.config.branches.values())
    last = given.frame_count if last is None else last
    chosen = store.read_unit(*given.subjects, columns=["frame", "face", "subject"])
    ranks: dict[str, dict[int, int]] = {}
    for key, manifest in (*given.features, *given.other_features):
        segment = FacesDetails.of(manifest)
        if segment.first_frame > last or segment.first_frame + segment.frame_count <= first:
            continue
        rank_or_face = "has_face" if key.dataset == "features" else "face"
        columns = ["frame", rank_or_face, "logits", *(["embedding"] if with_embeddings else [])]
        for batch in store.iter_unit(key, manifest, columns=columns):
            frame, logits = batch.column("frame").to_numpy(), to_vectors(batch.column("logits"))
            embeddings = np.broadcast_to(np.float16(0), (len(frame), head.config.embedding_size))
            if with_embeddings:
                embeddings = to_vectors(batch.column("embedding"))
            is_wanted = (frame >= first) & (frame <= last)
            if key.dataset == "features":
                subject = key.value("subject")
                if subject not in ranks:
                    mine = chosen.filter(pc.equal(chosen["subject"], subject))
                    ranks[subject] = dict(zip(mine["frame"].to_pylist(), mine["face"].to_pylist(), strict=True))
                is_wanted &= batch.column("has_face").to_numpy(zero_copy_only=False)
                rank = np.array([ranks[subject].get(number, 0) for number in frame.tolist()])
            else:
                rank = batch.column("face").to_numpy()
            if not (all_finite(logits, is_wanted) and (not with_embeddings or all_finite(embeddings, is_wanted))):
                raise store.distrust_unit(key, "expected finite features, got NaN or infinity")
            if is_wanted.any():
                rows = faces.rows_of(frame[is_wanted], rank[is_wanted])
                yield rows, embeddings[is_wanted], logits[is_wanted]
