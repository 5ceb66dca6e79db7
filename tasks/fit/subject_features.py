"""Read features and labels of subjects as arrays, for fitting heads and predicting with them."""

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from data_contracts.details.datasets import FeaturesDetails, SubjectsDetails, VideoDetails
from data_contracts.errors import InputError, first_names
from data_contracts.store.manifest import Manifest, StoredUnit, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import (
    ACTION_UNITS,
    DIMENSIONS,
    BranchName,
    is_imported,
    is_simulated,
    video_of_subject,
)
from models.decisions.smoothing import NOMINAL_FRAMES_PER_SECOND
from models.heads.sequences import SubjectSequence

# Larger arrays of a whole video are kept in temporary files: embeddings of 26,000 frames.
_LARGE_BYTES = 64 << 20


@dataclass(frozen=True)
class FeaturesVariant:
    """The available features of one backbone and one source.

    Attributes:
        subjects: subject -> its units in order.
        frames: subject -> unit with the time stamps of its video; only for heads that work on sequences.
        incomplete: subjects that were extracted only in part. Their last frames are missing, so they are left out.
    """

    backbone: str
    source: str
    subjects: dict[str, list[StoredUnit]]
    frames: dict[str, StoredUnit] = field(default_factory=dict)
    incomplete: tuple[str, ...] = ()

    @property
    def is_simulated(self) -> bool:
        """Return whether ``simulate`` wrote the features, also if their folder was renamed."""
        return is_simulated(self.backbone) or is_simulated(self.origin.backbone_name)

    @property
    def is_imported(self) -> bool:
        """Return whether another program computed the features, also if their folder was renamed."""
        return is_imported(self.backbone) or is_imported(self.origin.backbone_name)

    def identity(self, subject: str) -> list[str]:
        """Return the identities of the units that results of this subject depend on."""
        frames = [self.frames[subject].manifest.identity] if subject in self.frames else []
        return [*(manifest.identity for _, manifest in self.subjects[subject]), *frames]

    def of_subjects(self, subjects: list[str]) -> "FeaturesVariant":
        """Return the same variant with these subjects only."""
        frames = {subject: self.frames[subject] for subject in subjects if subject in self.frames}
        return replace(self, subjects={subject: self.subjects[subject] for subject in subjects}, frames=frames)

    def describe_incomplete(self) -> str | None:
        """Return a warning that names the subjects that were left out; None if there are none."""
        if not self.incomplete:
            return None
        count = len(self.incomplete)
        were = "subject was" if count == 1 else "subjects were"
        return (
            f"warning: features {self.backbone} {self.source}: {count} {were} extracted only in part and left out "
            f"({first_names(self.incomplete)}); run extract again"
        )

    def last_frame(self, subject: str) -> int:
        """Return the number of the last frame with features of the subject."""
        return sum(manifest.rows for _, manifest in self.subjects[subject])

    def frames_known_from(self, subject: str) -> str:
        """Return the source of the subject's number of frames: ``video``, or ``last crop`` if there is no video."""
        return FeaturesDetails.of(self.subjects[subject][-1].manifest).frames_known_from or "video"

    @property
    def origin(self) -> FeaturesDetails:
        """How the features of this variant were computed."""
        return FeaturesDetails.of(next(iter(self.subjects.values()))[0].manifest)


def find_features(store: Store, *, backbone: str | None = None, source: str | None = None) -> FeaturesVariant:
    """Return the features variant with these names, with or without their digits, or the only variant without names.

    Without names, imported features are left out if there are others.

    Raises:
        InputError: none matches, or several do.
    """
    found = _units_of_variants(store)
    wanted = (backbone or "", source or "")
    exact = {v for v in found if all(w in ("", n) or n.rsplit("-", 1)[0] == w for n, w in zip(v, wanted, strict=True))}
    if backbone is None and (extracted := {variant for variant in exact if not is_imported(variant[0])}):
        exact = extracted
    if len(exact) == 1:
        variant = exact.pop()
        return _complete_features(store, *variant, found[variant])
    listed = "; ".join(f"--features-variant {b} --source {s}" for b, s in sorted(exact or found)) or "none"
    problem = "several match" if exact else "none matches"
    if not found and store.manifests("face_features"):
        listed = "none of subjects, only those of persons that score wrote; run extract --no-crops to select them"
    named = " ".join(word for word in wanted if word) or "any features"
    raise InputError(f"features in {store.url}: {problem} {named}; found: {listed}")


def list_features(store: Store, *, source: str | None = None) -> list[FeaturesVariant]:
    """Return all features variants, or those of a source, by name. Variants without a complete subject are left out."""
    variants = []
    for (backbone, of_source), units in sorted(_units_of_variants(store).items()):
        if source in (None, of_source, of_source.rsplit("-", 1)[0]):
            with contextlib.suppress(InputError):
                variants.append(_complete_features(store, backbone, of_source, units))
    return variants


def _units_of_variants(store: Store) -> dict[tuple[str, str], dict[str, list[StoredUnit]]]:
    """Return the units of each subject, by backbone and source."""
    found: dict[tuple[str, str], dict[str, list[StoredUnit]]] = {}
    for key, manifest in store.manifests("features").items():
        variant = key.value("backbone"), key.value("source")
        found.setdefault(variant, {}).setdefault(key.value("subject"), []).append(StoredUnit(key, manifest))
    return found


def _complete_features(store: Store, backbone: str, source: str, found: dict[str, list[StoredUnit]]) -> FeaturesVariant:
    """Return the subjects that have features of all segments of their video, as far as their number is known."""
    segments: dict[str, int] = {}
    for manifest in store.manifests("subjects", source=source).values():
        details = SubjectsDetails.of(manifest)
        if details.segments is not None:
            segments |= dict.fromkeys(details.subjects, details.segments)
    incomplete = tuple(sorted(name for name, units in found.items() if len(units) < segments.get(name, 0)))
    subjects = {name: units for name, units in sorted(found.items()) if name not in incomplete}
    variant = FeaturesVariant(backbone, source, subjects, incomplete=incomplete)
    if not subjects:
        raise InputError(f"features in {store.url}: found no complete subject; {variant.describe_incomplete()}")
    return variant


def read_features(
    store: Store, variant: FeaturesVariant, subject: str, *, with_embeddings: bool = True
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield blocks of (frame int32 [n], has_face bool [n], embeddings float16 [n,D], logits float32 [n,C]).

    Without embeddings, they are not read: the array is a view of one zero.

    Raises:
        InputError: the features are damaged: frames are not consecutive, or values of faces are not finite. The next
            run computes them again.
    """
    expected = 1
    for key, manifest in variant.subjects[subject]:
        columns = None if with_embeddings else ["frame", "has_face", "logits"]
        size = 0 if with_embeddings else store.schema_of(key, manifest).field("embedding").type.list_size
        for batch in store.iter_unit(key, manifest, columns=columns):
            frame = batch.column("frame").to_numpy()
            has_face = batch.column("has_face").to_numpy(zero_copy_only=False)
            logits = np.zeros((len(frame), 0), np.float32)
            # Imported features may have no scores.
            if "logits" in batch.schema.names:
                logits = to_vectors(batch.column("logits"))
            embeddings = np.broadcast_to(np.float16(0), (len(frame), size))
            if with_embeddings:
                embeddings = to_vectors(batch.column("embedding"))
            if not np.array_equal(frame, np.arange(expected, expected + len(frame))):
                raise store.distrust_unit(key, f"expected frames from {expected} on, one a row, got others")
            if not (all_finite(logits, has_face) and (not with_embeddings or all_finite(embeddings, has_face))):
                raise store.distrust_unit(key, "expected finite features, got NaN or infinity")
            expected += len(frame)
            yield frame, has_face, embeddings, logits


def with_frames(store: Store, variant: FeaturesVariant) -> FeaturesVariant:
    """Add the time stamps of the subjects' videos, as far as the videos are in the store."""
    known = store.manifests("frames")
    frames = {}
    for subject in variant.subjects:
        for video in (subject, video_of_subject(subject)):
            key = UnitKey("frames", (("video", video),))
            if key in known:
                frames[subject] = StoredUnit(key, known[key])
                break
    return replace(variant, frames=frames)


def frame_rates(
    store: Store, subjects: Iterable[str], *, videos: Mapping[UnitKey, Manifest] | None = None
) -> dict[str, float]:
    """Return the average frame rate of the video of each subject, in 1/s.

    It is the nominal rate of 30 where it is unknown, as for official crops without the video. ``videos``: units of
    ``videos``, if the caller has listed them.
    """
    known = store.manifests("videos") if videos is None else videos
    rates = {}
    for subject in subjects:
        keys = [UnitKey("videos", (("video", one),)) for one in (subject, video_of_subject(subject))]
        key = next((one for one in keys if one in known), None)
        rate = VideoDetails.of(known[key]).average_fps if key else None
        if key and rate is None:
            # Earlier versions stored it in the table only.
            rate = store.read_unit(key, known[key], columns=["average_fps"])["average_fps"][0].as_py()
        rates[subject] = rate or NOMINAL_FRAMES_PER_SECOND
    return rates


def nominal_seconds(frame: np.ndarray) -> np.ndarray:
    """Return the times of frame numbers [n] at a nominal frame rate, float64 [n] in seconds, 0 for frame 1."""
    return (frame - 1) / NOMINAL_FRAMES_PER_SECOND


def read_sequence(
    store: Store,
    variant: FeaturesVariant,
    subject: str,
    *,
    allocate: Callable[[tuple[int, int], Any], np.ndarray] | None = None,
) -> SubjectSequence:
    """Read the features of all frames of a subject, into arrays of zeros that ``allocate(shape, dtype)`` returns.

    By default, arrays of long videos are in temporary files, so that memory stays bounded.
    """
    allocate = allocate or zeros
    count, embeddings, logits = variant.last_frame(subject), None, None
    present = np.zeros(count, bool)
    for frame, has_face, block, block_logits in read_features(store, variant, subject):
        if embeddings is None or logits is None:
            embeddings = allocate((count, block.shape[1]), block.dtype)
            logits = allocate((count, block_logits.shape[1]), block_logits.dtype)
        rows = frame[has_face] - 1
        embeddings[rows], logits[rows], present[rows] = block[has_face], block_logits[has_face], True
    assert embeddings is not None and logits is not None
    seconds = read_seconds(store, variant.frames.get(subject), count)
    return SubjectSequence(embeddings, logits, present, seconds)


def zeros(shape: tuple[int, int], dtype: Any) -> np.ndarray:
    """Return zeros: in memory, or, if they are large, in a memory-mapped temporary file without a name."""
    if math.prod(shape) * np.dtype(dtype).itemsize < _LARGE_BYTES:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile(prefix="affwild2-features-") as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def read_seconds(store: Store, frames: StoredUnit | None, count: int) -> np.ndarray:
    """Return the time of each frame since the first frame of the video, float64 [T]; nominal times if unknown.

    Args:
        frames: the unit with the time stamps; None: there is none.
        count: T.
    """
    if frames:
        seconds = store.read_unit(*frames, columns=["pts_seconds"])["pts_seconds"].to_numpy()[:count]
        if len(seconds) == count and np.isfinite(seconds).all():
            return np.asarray(seconds, np.float64)
    return nominal_seconds(np.arange(1, count + 1))


def to_vectors(column: pa.FixedSizeListArray) -> np.ndarray:
    """Return a view [n, D] of a fixed-size list column. Rows that are null have undefined values."""
    size = column.type.list_size
    values = column.values.slice(column.offset * size, len(column) * size)
    return values.to_numpy(zero_copy_only=False).reshape(len(column), size)


def all_finite(values: np.ndarray, rows: np.ndarray) -> bool:
    """Return whether the values [n, D] of these rows, bool [n], are finite."""
    if values.dtype != np.float16:
        return bool(np.isfinite(values[rows]).all())
    # In infinity and NaN, all bits of the exponent are 1. NumPy's test of float16 takes ten times as long.
    largest = np.bitwise_and(values.view(np.uint16), np.uint16(0x7C00)).max(axis=1, initial=0)
    return bool((largest[rows] < 0x7C00).all())


def read_faces_seen(store: Store, variant: FeaturesVariant, subject: str) -> np.ndarray:
    """Read the numbers of the frames that show the subject's face, ascending, int32 [n]."""
    parts = []
    for key, manifest in variant.subjects[subject]:
        table = store.read_unit(key, manifest, columns=["frame", "has_face"])
        parts.append(table["frame"].to_numpy()[table["has_face"].to_numpy()])
    return np.concatenate(parts)


def label_arrays(table: pa.Table) -> dict[BranchName, np.ndarray]:
    """Return labels as arrays: expr int8 [n] and au int8 [n,12], -1 unlabelled; va float32 [n,2], NaN unlabelled."""
    expr = table["expression"].fill_null(-1).to_numpy().astype(np.int8)
    va = np.stack([table[name].fill_null(np.nan).to_numpy().astype(np.float32) for name in DIMENSIONS], axis=1)
    au = np.stack([table[name].fill_null(-1).to_numpy().astype(np.int8) for name in ACTION_UNITS], axis=1)
    return {"expr": expr, "va": va, "au": au}
