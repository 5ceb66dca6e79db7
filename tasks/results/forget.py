"""Find and remove everything that a store holds of one video and the people in it."""

import contextlib
import csv
import hashlib
import html
import io
import json
import re
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.challenge.names import match_names
from data_contracts.challenge.submissions import zip_bytes
from data_contracts.challenge.test_lists import subject_of_image
from data_contracts.details.datasets import FacesDetails, LabelsDetails, SubjectsDetails, VideoDetails
from data_contracts.details.heads import HeadDetails, PostprocessingDetails
from data_contracts.details.records import problems_of
from data_contracts.details.submissions import SubmissionDetails
from data_contracts.errors import printable
from data_contracts.files.inputs import FileState
from data_contracts.schemas.labels import LABELS
from data_contracts.store.bundles import Bundle, list_bundles, manifest_path, read_manifest, write_manifest
from data_contracts.store.contents import DATASETS, REPORT_PAGE, VIEWERS
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.input_accounts import INPUTS
from data_contracts.store.manifest import Manifest, UnitKey, is_failure_path, key_of_manifest_path
from data_contracts.store.store import Store
from data_contracts.vocabulary import SUBJECT_SIDES, video_of_subject
from tasks.fit.tune_postprocessing import remove_subjects
from tasks.units import Product, write_product

# Partitions before the last one, which names the video or subject. Later stages come first.
_PARTITIONS_BEFORE = {
    "person_outputs": ("head", "source"),
    "outputs": ("head", "source"),
    "persons": ("source",),
    "other_features": ("backbone", "source"),
    "features": ("backbone", "source"),
    "subjects": ("source",),
    "face_features": ("backbone", "source"),
    "faces": ("source",),
    "frames": (),
    "videos": (),
}
_OF_SUBJECTS = ("outputs", "features")

_SUBMISSIONS, _POSTPROCESSING, _HEADS = "submissions", "postprocessing", "heads"
_PREDICTIONS = "predictions/"
_TEXTS = ("json", "txt", "csv", "html", "md")
_MOST_BYTES = 64 << 20
_PAGES_AT_ONCE = 16


@dataclass(frozen=True)
class StoredFolder:
    """A folder of the store, and how much it holds. ``rows``: of its units; None: it is no folder of units."""

    path: str
    files: int
    size_bytes: int
    rows: int | None = None

    @property
    def dataset(self) -> str:
        """The dataset of a folder of units."""
        return self.path.split("/", 1)[0]

    @property
    def variant(self) -> str:
        """The variant that a folder of a video or subject is in."""
        return " ".join(part.split("=", 1)[1] for part in self.path.split("/")[1:-1])


def names_of_videos(store: Store) -> set[str]:
    """Return the names of all videos with data in the datasets of a store."""
    datasets = [name for name in _PARTITIONS_BEFORE if name not in _OF_SUBJECTS]
    folders = (folder for dataset in datasets for folder in _folders(store, dataset))
    return {unquote(folder.rsplit("=", 1)[1], errors="surrogateescape") for folder in folders}


def indexed_path(store: Store, video: str) -> str | None:
    """Return the path of the video file when it was indexed; None if the video is not indexed."""
    found = store.manifests("videos", video=video)
    return next((VideoDetails.of(manifest).path for manifest in found.values()), None)


def subjects_of_video(store: Store, video: str, *, videos: Collection[str]) -> list[str]:
    """Return the subjects that the units of a video name, and its sides unless other ``videos`` have these names."""
    named = {video} | {video + side for side in SUBJECT_SIDES if video + side not in videos}
    for folder in _folders(store, "faces", video):
        subjects = (FacesDetails.of(manifest).subject for manifest in _manifests_in(store, folder).values())
        named |= {subject for subject in subjects if subject is not None}
    for folder in _folders(store, "subjects", video):
        for manifest in _manifests_in(store, folder).values():
            named |= set(SubjectsDetails.of(manifest).subjects)
    return sorted(named)


def find_unit_folders(store: Store, video: str, subjects: Sequence[str]) -> list[StoredFolder]:
    """Return the folders of a video and its subjects in all datasets and variants, the last stage first."""
    found = []
    for dataset in _PARTITIONS_BEFORE:
        for name in subjects if dataset in _OF_SUBJECTS else [video]:
            for folder in _folders(store, dataset, name):
                rows = sum(manifest.rows for manifest in _manifests_in(store, folder).values())
                found.append(measure_folder(store, folder, rows))
    return found


def measure_folder(store: Store, path: str, rows: int | None = None) -> StoredFolder:
    """Return a folder with the number and size of the files below."""
    files = store.files_below(path)
    return StoredFolder(path, len(files), sum(state.size_bytes for state in files.values()), rows)


def _folders(store: Store, dataset: str, name: str | None = None) -> Iterator[str]:
    """Yield the folders of one video or subject in all variants; without a name, the folders of all."""
    variants = [dataset]
    for partition in _PARTITIONS_BEFORE[dataset]:
        variants = [f"{v}/{n}" for v in variants for n in store.list_folder(v) if n.startswith(f"{partition}=")]
    last = "subject" if dataset in _OF_SUBJECTS else "video"
    for variant in variants:
        if name is None:
            yield from (f"{variant}/{n}" for n in store.list_folder(variant) if n.startswith(f"{last}="))
        elif store.exists(found := f"{variant}/{UnitKey('', ((last, name),)).folder.lstrip('/')}"):
            yield found


def _manifests_in(store: Store, folder: str) -> dict[UnitKey, Manifest]:
    dataset, *parts = folder.split("/")
    pairs = (part.split("=", 1) for part in parts)
    return store.manifests(dataset, **{key: unquote(value, errors="surrogateescape") for key, value in pairs})


def remove_folders(store: Store, folders: Sequence[StoredFolder]) -> None:
    """Remove folders of units and bundles with all their files, in their order.

    Of each, the manifests are removed first, in the reverse order of parts: at any time, what still exists is complete
    and, if the folders of later stages come first, has all its inputs. An interrupted call can be repeated.
    """
    for folder in folders:
        paths = store.files_below(folder.path)
        manifests = [path for path in paths if key_of_manifest_path(path) or path == manifest_path(folder.path)]
        for path in sorted(manifests, reverse=True):
            store.remove(path)
        store.remove_folder(folder.path)


@dataclass(frozen=True)
class LabelSet:
    """Labels of one set for one task. ``lines``: number of lines of the subjects."""

    key: UnitKey
    manifest: Manifest
    lines: int


def find_labels(store: Store, subjects: Collection[str]) -> list[LabelSet]:
    """Return the label sets with lines of these subjects, or with a problem in one of their files."""
    found = []
    for key, manifest in store.manifests("labels").items():
        problems = [line for line in problems_of(manifest) if _names_file_of(line, subjects)]
        if problems or set(subjects) & set(LabelsDetails.of(manifest).subjects):
            named = store.read_unit(key, manifest, columns=["subject"])["subject"]
            lines = int(pc.sum(pc.is_in(named, pa.array(sorted(subjects)))).as_py() or 0)
            found.append(LabelSet(key, manifest, lines))
    return found


def _names_file_of(line: str, subjects: Collection[str]) -> bool:
    return any(re.search(rf"[/\\]{re.escape(name)}\.\w+", line) for name in subjects)


def remove_labels(store: Store, found: Sequence[LabelSet], subjects: Collection[str]) -> None:
    """Remove the lines of these subjects from the sets. The next ``fit`` reads the annotation files again."""
    theirs = pa.array(sorted(subjects))
    for one in found:
        batches = store.iter_unit(one.key, one.manifest)
        tables = (pa.Table.from_batches([b]).filter(pc.invert(pc.is_in(b["subject"], theirs))) for b in batches)
        known = LabelsDetails.of(one.manifest).subjects
        details = LabelsDetails(subjects=tuple(name for name in known if name not in subjects))
        product = Product(LABELS, tables, details=details)
        product.counts.update({name: count - one.lines for name, count in one.manifest.counts.items()})
        product.problems += [line for line in problems_of(one.manifest) if not _names_file_of(line, subjects)]
        new_fingerprint = fingerprint(stage="forget_units", without=one.lines, labels=one.manifest.fingerprint)
        write_product(store, one.key, product, fingerprint=new_fingerprint, started=time.monotonic())
        store.remove(f"{one.key.folder}/{one.manifest.part}")
    _remove_leftovers(store, subjects)


def _remove_leftovers(store: Store, subjects: Collection[str]) -> None:
    """Remove parts of labels that no manifest names, and notes of failures that name a file of these subjects."""
    kept = {f"{key.folder}/{manifest.part}" for key, manifest in store.manifests("labels").items()}
    for path in store.files_below("labels"):
        is_old_part = path.endswith(".parquet") and path not in kept
        if is_old_part or (is_failure_path(path) and _names_file_of(store.read_bytes(path).decode(), subjects)):
            store.remove(path)


def find_results(store: Store, subjects: Collection[str]) -> list[Bundle]:
    """Return bundles that name these subjects, even if files are missing.

    These are submissions with rows of them, post-processings tuned on them, and heads that list them among their sets.
    """
    return [bundle for bundle in _results(store) if match_names(_subjects_of(bundle), subjects)]


def _results(store: Store) -> Iterator[Bundle]:
    for kind in (_SUBMISSIONS, _POSTPROCESSING, _HEADS):
        for name in store.list_folder(kind):
            if bundle := read_manifest(store, f"{kind}/{name}"):
                yield bundle


def _is_submission(bundle: Bundle) -> bool:
    return bundle.folder.startswith(f"{_SUBMISSIONS}/")


def _is_head(bundle: Bundle) -> bool:
    return bundle.folder.startswith(f"{_HEADS}/")


def _subjects_of(bundle: Bundle) -> tuple[str, ...]:
    if _is_submission(bundle):
        return tuple(row.subject for row in SubmissionDetails.of(bundle).coverage)
    if _is_head(bundle):
        details = HeadDetails.of(bundle)
        return tuple({*details.train_subjects, *details.validation_subjects, *details.excluded_subjects})
    return PostprocessingDetails.of(bundle).subjects


def names_in_results(store: Store) -> set[str]:
    """Return the videos of all subjects that labels, submissions and post-processings name."""
    named = {name for manifest in store.manifests("labels").values() for name in LabelsDetails.of(manifest).subjects}
    named.update(name for bundle in _results(store) for name in _subjects_of(bundle))
    return {video_of_subject(name) for name in named}


def find_reports(store: Store, subjects: Collection[str]) -> list[str]:
    """Return the paths of report pages and accounts of inputs that name one of the subjects, and of their viewers.

    Pages and accounts can be written again without them.
    """
    mention = _mention_of(subjects)
    paths = [f"reports/{name}/{REPORT_PAGE}" for name in store.list_folder("reports")]
    found = []
    for start in range(0, len(paths), _PAGES_AT_ONCE):
        some = paths[start : start + _PAGES_AT_ONCE]
        found += [path for path, page in zip(some, store.files.read_many(some), strict=True) if mention.search(page)]
    found += [path for subject in subjects for path in store.files_below(f"{VIEWERS}/{subject}")]
    for account in list_bundles(store, INPUTS):
        text = json.dumps(account.details, ensure_ascii=False)
        if mention.search(text.encode(errors="surrogateescape")):
            found.append(manifest_path(account.folder))
    return found


def remove_report(store: Store, path: str) -> None:
    """Remove a file that ``find_reports`` found, and the folder of a viewer, whose name is that of the video."""
    store.remove(path)
    if path.startswith(f"{VIEWERS}/"):
        store.remove_folder(path.rsplit("/", 1)[0])


def find_mentions(store: Store, subjects: Collection[str]) -> list[str]:
    """Return the paths of small text files outside of the datasets (notes, lists) that name one of the subjects."""
    mention = _mention_of(subjects)
    found = []
    for top in store.list_folder(""):
        if top in DATASETS or top.startswith("."):
            continue
        for path, state in (store.files_below(top) or {top: FileState(0)}).items():
            # A viewer is large and shows one video.
            is_viewer = path.startswith(f"{VIEWERS}/")
            if path.rsplit(".", 1)[-1] in _TEXTS and state.size_bytes <= _MOST_BYTES and not is_viewer:
                with contextlib.suppress(OSError):
                    if mention.search(path.encode(errors="surrogateescape")) or mention.search(store.read_bytes(path)):
                        found.append(path)
    return found


def _mention_of(subjects: Collection[str]) -> re.Pattern[bytes]:
    """Return a pattern for the names as whole words, unchanged or escaped as in HTML pages."""
    forms = {form for subject in subjects for form in (subject, html.escape(printable(subject)))}
    name = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    return re.compile(rf"""(?:^|["'/\\=,>\s])(?:{name})(?=["'/.,:<\s]|$)""".encode(errors="surrogateescape"), re.M)


def remove_from_result(store: Store, bundle: Bundle, subjects: Collection[str]) -> None:
    """Write a bundle without these subjects. The manifest comes last, so that an interrupted call can be repeated.

    A submission gets another fingerprint, so that ``submit`` does not take it for a complete one. The rules of a
    post-processing stay as they were tuned, and heads as they were fitted.
    """
    # A test list, and so its submission, may spell them differently.
    subjects = {*subjects, *match_names(_subjects_of(bundle), subjects)}
    if _is_head(bundle):
        head = HeadDetails.of(bundle)
        details = replace(
            head,
            train_subjects=_without(head.train_subjects, subjects),
            validation_subjects=_without(head.validation_subjects, subjects),
            excluded_subjects=_without(head.excluded_subjects, subjects),
            weights_of_folds=tuple(
                replace(fold, subjects=_without(fold.subjects, subjects)) for fold in head.weights_of_folds
            ),
        )
        write_manifest(store, replace(bundle, details=details.to_json()))
        return
    if not _is_submission(bundle):
        remove_subjects(store, bundle, subjects)
        return
    written = SubmissionDetails.of(bundle)
    coverage = tuple(row for row in written.coverage if row.subject not in subjects)
    # The checks were made with the removed rows, and their faults may name a subject.
    in_train, in_validation = _without(written.in_train, subjects), _without(written.in_validation, subjects)
    written = replace(written, coverage=coverage, checks=None, in_train=in_train, in_validation=in_validation)
    gone = {f"{_PREDICTIONS}{subject}.txt" for subject in subjects}
    files = {}
    for name in bundle.files:
        with contextlib.suppress(FileNotFoundError):
            if name not in gone and name != written.zip:
                data = store.read_bytes(f"{bundle.folder}/{name}")
                files[name] = _without_lines(name, data, subjects)
    texts = {name.removeprefix(_PREDICTIONS): data for name, data in files.items() if name.startswith(_PREDICTIONS)}
    files[written.zip] = zip_bytes(texts, simulated=written.is_simulated)
    for name, data in files.items():
        store.write_bytes(f"{bundle.folder}/{name}", data)
    for name in gone & set(bundle.files):
        store.remove(f"{bundle.folder}/{name}")
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    new_fingerprint = fingerprint(stage="forget_results", submission=bundle.fingerprint, files=digests)
    write_manifest(store, Bundle(bundle.folder, new_fingerprint, digests, written.to_json()))


def _without(names: Sequence[str], subjects: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in subjects)


def _without_lines(name: str, data: bytes, subjects: Collection[str]) -> bytes:
    """Return the content of a file without the rows that name one of the subjects.

    Rows in files of a single subject do not contain names.
    """
    if name == "coverage.csv":
        rows = csv.reader(io.StringIO(data.decode()))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(row for row in rows if row[0] not in subjects)
        return text.getvalue().encode()
    if data.startswith(b"image"):
        lines = data.decode(errors="surrogateescape").splitlines(keepends=True)
        kept = (line for line in lines if subject_of_image(line.split(",", 1)[0]) not in subjects)
        return "".join(kept).encode(errors="surrogateescape")
    return data
