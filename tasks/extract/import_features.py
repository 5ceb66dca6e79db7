"""Stage ``import_features``: put features that other programs computed into the dataset ``features``.

They are keyed by subject and frame, and are not features of faces: a frame has them where the file has a row for it.
Frames without a row are treated as frames without a face.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_contracts.challenge.names import match_names
from data_contracts.details.datasets import FeaturesDetails
from data_contracts.errors import InputError, counted, first_names
from data_contracts.schemas.features import imported_features_dataset
from data_contracts.store.fingerprint import digest_of_file, fingerprint, variant_name
from data_contracts.store.manifest import UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND, IMPORTED_PREFIX, MAX_FRAME, NO_FACE
from models.engines.progress import report_progress
from tasks.extract.embed_faces import features_table
from tasks.extract.feature_files import FeatureFile
from tasks.units import Product, Unit

CODE_VERSION = 1
# In place of a variant of faces.
SOURCE = "imported"
_LARGEST, _SMALLEST = float(np.finfo(np.float16).max), float(np.finfo(np.float16).tiny)
_NAMES_SHOWN = 3
_BLOCK_FRAMES = 2048
_EMBEDDINGS, _SCORES, _IS_USABLE = "embeddings.f2", "scores.f4", "is_usable.b1"


@dataclass(frozen=True)
class KnownSubject:
    """A subject of the store: its number of frames, and where that is from (``video`` or ``last crop``)."""

    frames: int
    frames_known_from: str


@dataclass(frozen=True, eq=False)
class SubjectRows:
    """The rows of a subject: numbers of the rows in the file, and their frames from 1, ascending."""

    subject: KnownSubject
    row: np.ndarray
    frame: np.ndarray


@dataclass(frozen=True)
class Survey:
    """Which rows of a file are of which subject.

    Attributes:
        rows: number of all rows.
        subjects: by name in the store; those of the store without a row are missing.
        respelled: name in the file -> name in the store.
        unknown: names in the file that the store does not have -> number of rows.
        beyond: subject -> number of rows after the last frame of its video.
        without: subjects of the store without a row.
    """

    rows: int
    subjects: dict[str, SubjectRows]
    respelled: dict[str, str]
    unknown: dict[str, int]
    beyond: dict[str, int]
    without: tuple[str, ...]

    def coverage(self) -> dict[str, int]:
        """Return the numbers of subjects and frames with and without a row, by what they count."""
        used = sum(len(one.frame) for one in self.subjects.values())
        frames = sum(one.subject.frames for one in self.subjects.values())
        return {
            "rows": self.rows,
            "subjects": len(self.subjects),
            "frames": frames,
            "with a row": used,
            "without a row": frames - used,
            "beyond the video": sum(self.beyond.values()),
            "of unknown subjects": sum(self.unknown.values()),
            "subjects without rows": len(self.without),
        }

    def lost(self) -> list[str]:
        """Return a line for each kind of rows that are not used."""
        lines = []
        if self.unknown:
            lines.append(
                f"{counted(sum(self.unknown.values()), 'row')} of {counted(len(self.unknown), 'subject')} not used, "
                f"because the store does not have them ({_names(self.unknown)}); extract their videos, or correct the "
                "names"
            )
        if self.beyond:
            lines.append(
                f"{counted(sum(self.beyond.values()), 'row')} not used, because the frames are after the last one of "
                f"the video ({_names(self.beyond)}); check how frames are numbered"
            )
        return lines


def _names(found: Mapping[str, int]) -> str:
    return first_names([f"{name}: {count:,}" for name, count in found.items()], _NAMES_SHOWN)


def survey_rows(file: FeatureFile, known: Mapping[str, KnownSubject], *, first_frame: int) -> Survey:
    """Read subjects and frames of all rows.

    Args:
        known: subjects of the store; if there are none, all of the file are taken, each up to its last row.
        first_frame: number of the first frame in the file, 0 or 1.

    Raises:
        InputError: no row is of a known subject, a frame has two rows, or a number of a frame is wrong.
    """
    numbers: dict[str, int] = {}
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    total = 0
    for block in file.rows(with_values=False):
        encoded = block.subject.dictionary_encode()
        codes = np.array([numbers.setdefault(name, len(numbers)) for name in encoded.dictionary.to_pylist()], np.int32)
        frame = block.frame + (1 - first_frame)
        if len(frame) and not 1 <= frame.min() <= frame.max() <= MAX_FRAME:
            wrong = frame.max() if frame.min() >= 1 else frame.min()
            hint = "; pass --first-frame 0 if frames count from 0" if (wrong, first_frame) == (0, 1) else ""
            raise file.wrong(
                f"frames from {first_frame} to {MAX_FRAME:,}", f"frame {wrong - 1 + first_frame}", f"correct it{hint}"
            )
        parts.append((codes[encoded.indices.to_numpy()], frame.astype(np.int32)))
        total += len(frame)
        report_progress("reading subjects and frames: {:,} rows", total)
    if not total:
        raise file.wrong("rows", "none")
    if any(not name.strip() for name in numbers):
        raise file.wrong("the name of a subject in every row", "an empty one")
    code, frame = (np.concatenate(one) for one in zip(*parts, strict=True))
    order = np.lexsort((frame, code))
    code, frame = code[order], frame[order]
    names = list(numbers)
    _check_no_frame_twice(file, [names[one] for one in code[1:][_is_repeated(code, frame)]], frame, code)
    bounds = np.searchsorted(code, np.arange(len(names) + 1))
    rows = {name: slice(bounds[number], bounds[number + 1]) for number, name in enumerate(names)}
    if not known:
        known = {name: KnownSubject(int(frame[part][-1]), "last crop") for name, part in rows.items()}
    matches = match_names(names, known)
    subjects, beyond = {}, {}
    for name, subject in sorted(matches.items(), key=lambda pair: pair[1]):
        part = rows[name]
        inside = int(np.searchsorted(frame[part], known[subject].frames, side="right"))
        if inside:
            subjects[subject] = SubjectRows(known[subject], order[part][:inside], frame[part][:inside])
        if more := len(frame[part]) - inside:
            beyond[subject] = more
    unknown = {name: int(part.stop - part.start) for name, part in rows.items() if name not in matches}
    if not subjects:
        raise file.wrong(
            f"rows of subjects of the store, such as {', '.join(sorted(known)[:_NAMES_SHOWN])}",
            f"those of {', '.join(names[:_NAMES_SHOWN])}",
        )
    without = tuple(sorted(set(known) - set(subjects)))
    return Survey(total, subjects, matches, unknown, beyond, without)


def _is_repeated(code: np.ndarray, frame: np.ndarray) -> np.ndarray:
    return np.asarray((code[1:] == code[:-1]) & (frame[1:] == frame[:-1]))


def _check_no_frame_twice(file: FeatureFile, names: list[str], frame: np.ndarray, code: np.ndarray) -> None:
    if names:
        frames = frame[1:][_is_repeated(code, frame)]
        shown = ", ".join(f"{name} frame {at}" for name, at in zip(names[:_NAMES_SHOWN], frames, strict=False))
        raise file.wrong("one row per subject and frame", f"{counted(len(names), 'row')} too many ({shown})")


@dataclass(frozen=True)
class ImportFeaturesArgs:
    """The rows of one subject in the unpacked file.

    Attributes:
        file: path of the file, for messages.
        folder: of the unpacked file, see ``unpack_file``.
        rows: which rows are the subject's.
        embedding_size, score_names: as of the file.
        backbone_name: what the variant is called.
    """

    file: str
    folder: str
    rows: SubjectRows
    embedding_size: int
    score_names: tuple[str, ...]
    backbone_name: str


def plan_import_features(
    file: FeatureFile, survey: Survey, *, name: str, first_frame: int, folder: Path
) -> list[Unit[ImportFeaturesArgs]]:
    """Plan one unit per subject with rows. ``folder``: where ``unpack_file`` writes, if a unit is missing."""
    # Units of files that count from 1 do not name it.
    numbering = {} if first_frame == 1 else {"first_frame": first_frame}
    inputs = {"file": digest_of_file(file.path), "version": CODE_VERSION, **numbering}
    backbone_name = f"{IMPORTED_PREFIX}{name}"
    variant = variant_name(backbone_name, fingerprint(**inputs))
    units = []
    for subject, rows in survey.subjects.items():
        unit_fingerprint = fingerprint(
            stage="import_features", subject=ascii(subject), frame_count=rows.subject.frames, **inputs
        )
        place = (("backbone", variant), ("source", SOURCE), ("subject", subject))
        arguments = ImportFeaturesArgs(
            str(file.path), str(folder), rows, file.embedding_size, file.score_names, backbone_name
        )
        units.append(Unit(UnitKey("features", place), unit_fingerprint, arguments))
    return units


def unpack_file(file: FeatureFile, folder: Path) -> None:
    """Write the values of all rows into files in a folder, from which units read their rows in any order.

    Raises:
        InputError: a value is too large for the store, or all values of a column are too small.
    """
    done, largest_of_column = 0, np.zeros(file.embedding_size)
    with (
        (folder / _EMBEDDINGS).open("wb") as embeddings,
        (folder / _SCORES).open("wb") as scores,
        (folder / _IS_USABLE).open("wb") as usable,
    ):
        for block in file.rows(with_values=True):
            values, size = block.values, file.embedding_size
            is_finite = np.isfinite(values).all(axis=1)
            sizes = np.abs(np.where(is_finite[:, None], values, 0))[:, :size]
            largest = sizes.max(axis=1)
            largest_of_column = np.maximum(largest_of_column, sizes.max(axis=0, initial=0))
            if (largest > _LARGEST).any():
                at = int(largest.argmax())
                raise file.wrong(
                    f"values up to {_LARGEST:,.0f}, because features are stored with 16 bits",
                    f"{largest[at]:g} of {block.subject[at].as_py()} frame {block.frame[at]}",
                    "scale its column down",
                )
            embeddings.write(np.where(is_finite[:, None], values[:, :size], 0).astype(np.float16).tobytes())
            scores.write(np.where(is_finite[:, None], values[:, size:], 0).astype(np.float32).tobytes())
            usable.write(is_finite.tobytes())
            done += len(values)
            report_progress("unpacking the file: {:,} rows", done)
    lost = np.flatnonzero((largest_of_column > 0) & (largest_of_column < _SMALLEST))
    if lost.size:
        raise file.wrong(
            f"values of {_SMALLEST:g} and more, because features are stored with 16 bits",
            f"at most {largest_of_column[lost[0]]:g} in column {lost[0] + 1} of the embedding",
            "scale this column up",
        )


def compute(store: Store, unit: Unit[ImportFeaturesArgs]) -> Product:
    """Return the features of all frames of one subject; rows with NaN or infinity are left out and reported.

    Raises:
        InputError: no row is left.
    """
    given = unit.arguments
    subject, known = unit.key.value("subject"), given.rows.subject
    folder, sizes = Path(given.folder), (given.embedding_size, len(given.score_names))
    is_usable = np.fromfile(folder / _IS_USABLE, bool)[given.rows.row]
    row, frame = given.rows.row[is_usable], given.rows.frame[is_usable]
    if not len(row):
        raise InputError(f"{given.file}: expected numbers in the rows of {subject}, got NaN or infinity in all of them")
    embeddings = np.memmap(folder / _EMBEDDINGS, np.float16, "r").reshape(-1, sizes[0])
    scores = np.zeros((len(embeddings), 0), np.float32)
    if sizes[1]:
        scores = np.memmap(folder / _SCORES, np.float32, "r").reshape(-1, sizes[1])
    product = Product(imported_features_dataset(sizes[0], given.score_names), [])
    product.counts[FACE_FOUND], product.counts[NO_FACE] = len(row), known.frames - len(row)
    if lost := int((~is_usable).sum()):
        product.problems.append(
            f"{subject}: {counted(lost, 'row')} of {given.file} left out because of NaN or infinity; their frames have "
            "no features"
        )
    product.details = FeaturesDetails(
        first_frame=1,
        frame_count=known.frames,
        subject=subject,
        frames_known_from=known.frames_known_from,
        backbone_name=given.backbone_name,
        engine="import",
    )

    def tables() -> Iterator[pa.Table]:
        for first in range(1, known.frames + 1, _BLOCK_FRAMES):
            count = min(_BLOCK_FRAMES, known.frames + 1 - first)
            here = slice(*np.searchsorted(frame, (first, first + count)))
            at, has_row = frame[here] - first, np.zeros(count, bool)
            has_row[at] = True
            values = np.zeros((count, sizes[0]), np.float16), np.zeros((count, sizes[1]), np.float32)
            values[0][at], values[1][at] = embeddings[row[here]], scores[row[here]]
            yield features_table(product.dataset, np.arange(first, first + count), has_row, *values)

    product.tables = tables()
    return product
