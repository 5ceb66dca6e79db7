"""All that the datasets of a store hold of one video and the people in it: found, counted, removed.

What lies in bundles and in folders of predictions is the business of ``forget_results``.
"""

import re
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.schemas import LABELS
from data_contracts.store.details import FacesDetails, LabelsDetails, SubjectsDetails, VideoDetails, problems_of
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import Manifest, UnitKey, is_failure_path, key_of_manifest_path
from data_contracts.store.store import Store
from data_contracts.vocabulary import SUBJECT_SIDES
from tasks.units import Product, write_product

# The name of a video or subject is the last partition of each; what is made later comes first.
_PARTITIONS_BEFORE = {
    "outputs": ("head", "source"),
    "features": ("backbone", "source"),
    "subjects": ("source",),
    "faces": ("source",),
    "frames": (),
    "videos": (),
}
_OF_SUBJECTS = ("outputs", "features")


@dataclass(frozen=True)
class UnitFolder:
    """One folder of a video or subject: the variant it is of, and what is in it."""

    path: str
    dataset: str
    variant: str
    files: int
    size_bytes: int
    rows: int


def names_of_videos(store: Store) -> set[str]:
    """Every video of which a store holds anything in its datasets."""
    datasets = [name for name in _PARTITIONS_BEFORE if name not in _OF_SUBJECTS]
    folders = (folder for dataset in datasets for folder in _folders(store, dataset))
    return {unquote(folder.rsplit("=", 1)[1], errors="surrogateescape") for folder in folders}


def indexed_path(store: Store, video: str) -> str | None:
    """Where the file was when it was indexed; None if that is not known (any more)."""
    found = store.manifests("videos", video=video)
    return next((VideoDetails.of(manifest).path for manifest in found.values()), None)


def subjects_of_video(store: Store, video: str, *, videos: Collection[str]) -> list[str]:
    """People in a video: those that its units name, and its sides, unless these are ``videos`` of their own."""
    named = {video} | {video + side for side in SUBJECT_SIDES if video + side not in videos}
    for folder in _folders(store, "faces", video):
        subjects = (FacesDetails.of(manifest).subject for manifest in _manifests_in(store, folder).values())
        named |= {subject for subject in subjects if subject is not None}
    for folder in _folders(store, "subjects", video):
        for manifest in _manifests_in(store, folder).values():
            named |= set(SubjectsDetails.of(manifest).subjects)
    return sorted(named)


def find_unit_folders(store: Store, video: str, subjects: Sequence[str]) -> list[UnitFolder]:
    """Folders of all datasets and variants that are of a video or its subjects, the last stage first."""
    found = []
    for dataset in _PARTITIONS_BEFORE:
        for name in subjects if dataset in _OF_SUBJECTS else [video]:
            found += [_describe(store, dataset, folder) for folder in _folders(store, dataset, name)]
    return found


def _describe(store: Store, dataset: str, folder: str) -> UnitFolder:
    files = store.files_below(folder)
    variant = " ".join(part.split("=", 1)[1] for part in folder.split("/")[1:-1])
    rows = sum(manifest.rows for manifest in _manifests_in(store, folder).values())
    return UnitFolder(folder, dataset, variant, len(files), sum(state.size_bytes for state in files.values()), rows)


def _folders(store: Store, dataset: str, name: str | None = None) -> Iterator[str]:
    """Folders of one video or subject in all variants, or those of all."""
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


def remove_unit_folders(store: Store, folders: Sequence[UnitFolder]) -> None:
    """Remove them with all that is in them.

    Manifests go first, the last stage's and the last parts' before others: whatever exists at any time is whole and has
    all that it was made of. The videos themselves go last, so that a call that was cut short can be made again.
    """
    for folder in folders:
        paths = [path for path in store.files_below(folder.path) if key_of_manifest_path(path)]
        for path in sorted(paths, reverse=True):
            store.remove(path)
    for folder in folders:
        store.remove_folder(folder.path)


@dataclass(frozen=True)
class LabelSet:
    """Labels of one set for one task in which subjects occur: how many lines are theirs."""

    key: UnitKey
    manifest: Manifest
    lines: int


def find_labels(store: Store, subjects: Collection[str]) -> list[LabelSet]:
    """Sets of labels that hold lines of these subjects, or a problem with a file of one of them."""
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
    """Write the sets without the lines of these subjects; ``fit`` reads the annotations anew all the same."""
    theirs = pa.array(sorted(subjects))
    for one in found:
        batches = store.iter_unit(one.key, one.manifest)
        tables = (pa.Table.from_batches([b]).filter(pc.invert(pc.is_in(b["subject"], theirs))) for b in batches)
        known = LabelsDetails.of(one.manifest).subjects
        details = LabelsDetails(subjects=tuple(name for name in known if name not in subjects))
        product = Product(LABELS, tables, details=details)
        product.counts.update({name: count - one.lines for name, count in one.manifest.counts.items()})
        product.problems += [line for line in problems_of(one.manifest) if not _names_file_of(line, subjects)]
        made_from = fingerprint(stage="forget_units", without=one.lines, labels=one.manifest.fingerprint)
        write_product(store, one.key, product, fingerprint=made_from, started=time.monotonic())
    _remove_leavings(store, subjects)


def _remove_leavings(store: Store, subjects: Collection[str]) -> None:
    """Parts of labels that no manifest names any more, and notes of failures that name a file of these subjects."""
    kept = {f"{key.folder}/{manifest.part}" for key, manifest in store.manifests("labels").items()}
    for path in store.files_below("labels"):
        is_old_part = path.endswith(".parquet") and path not in kept
        if is_old_part or (is_failure_path(path) and _names_file_of(store.read_bytes(path).decode(), subjects)):
            store.remove(path)
