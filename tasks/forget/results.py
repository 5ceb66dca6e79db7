"""What is made of outputs and holds rows or names of people: submissions, post-processing, predictions in folders."""

import contextlib
import csv
import hashlib
import html
import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from data_contracts.challenge.submission_files import zip_bytes
from data_contracts.errors import printable
from data_contracts.files.inputs import FileState, file_state
from data_contracts.files.local import UNFINISHED
from data_contracts.files.locations import location
from data_contracts.store.bundles import Bundle, read_manifest, write_manifest
from data_contracts.store.contents import REPORT_PAGE
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.store import Store
from data_contracts.vocabulary import video_of_subject
from tasks.results.write_predictions import prediction_files, read_record, write_record

_KINDS = ("submissions", "postprocessing")
_PREDICTIONS = "predictions/"
_DATASETS = ("videos", "frames", "faces", "subjects", "features", "labels", "outputs", "pictures")
_TEXTS = ("json", "txt", "csv", "html", "md")
_MOST_BYTES = 64 << 20


def find_results(store: Store, subjects: Collection[str]) -> list[Bundle]:
    """Submissions that have rows of these subjects, and post-processings that name them; whole or not."""
    found = []
    for kind in _KINDS:
        for name in store.list_folder(kind):
            bundle = read_manifest(store, f"{kind}/{name}")
            if bundle and _without(bundle.details, subjects) != bundle.details:
                found.append(bundle)
    return found


def names_in_results(store: Store) -> set[str]:
    """Videos of all people that labels, submissions and post-processings name."""
    details = [manifest.details for manifest in store.manifests("labels").values()]
    for kind in _KINDS:
        found = (read_manifest(store, f"{kind}/{name}") for name in store.list_folder(kind))
        details += [bundle.details for bundle in found if bundle]
    named = {name for one in details for name in one.get("subjects", ())}
    named |= {row["subject"] for one in details for row in one.get("coverage", ())}
    return {video_of_subject(name) for name in named}


def find_reports(store: Store, subjects: Collection[str]) -> list[str]:
    """Pages of ``write_report`` that show one of the subjects; without them, they can be written again."""
    mention = _mention_of(subjects)
    paths = [f"reports/{name}/{REPORT_PAGE}" for name in store.list_folder("reports")]
    return [path for path in paths if store.exists(path) and mention.search(store.read_bytes(path))]


def find_mentions(store: Store, subjects: Collection[str]) -> list[str]:
    """Small files outside of the datasets (notes, lists) that name one of the subjects, as far as text tells."""
    mention = _mention_of(subjects)
    found = []
    for top in store.list_folder(""):
        if top in _DATASETS or top.startswith("."):
            continue
        for path, state in (store.files_below(top) or {top: FileState(0)}).items():
            if path.rsplit(".", 1)[-1] in _TEXTS and state.size_bytes <= _MOST_BYTES:
                with contextlib.suppress(OSError):
                    if mention.search(path.encode(errors="surrogateescape")) or mention.search(store.read_bytes(path)):
                        found.append(path)
    return found


def _mention_of(subjects: Collection[str]) -> re.Pattern[bytes]:
    """A name that stands alone, as it is or as pages show it."""
    forms = {form for subject in subjects for form in (subject, html.escape(printable(subject)))}
    name = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    return re.compile(rf"""(?:^|["'/\\=,>\s])(?:{name})(?=["'/.,:<\s]|$)""".encode(errors="surrogateescape"), re.M)


def _without(details: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    changed = dict(details)
    if "subjects" in details:
        changed["subjects"] = [name for name in details["subjects"] if name not in names]
    if "coverage" in details:
        changed["coverage"] = [row for row in details["coverage"] if row["subject"] not in names]
    if changed != details:
        # What was checked had these rows; lines of faults may name them.
        changed.pop("checks", None)
    return changed


def remove_from_result(store: Store, bundle: Bundle, subjects: Collection[str]) -> None:
    """Write a bundle without what it has of these subjects; the manifest last, so that it can be done again.

    A submission is then one of fewer subjects: it gets another fingerprint, so that ``submit`` does not take it for
    what was asked of it. The rule of a post-processing stays as it was tuned.
    """
    details = _without(bundle.details, subjects)
    if not bundle.folder.startswith("submissions/"):
        write_manifest(store, replace(bundle, details=details))
        return
    gone = {f"{_PREDICTIONS}{subject}.txt" for subject in subjects}
    files = {}
    for name in bundle.files:
        with contextlib.suppress(FileNotFoundError):
            if name not in gone and name != details.get("zip"):
                data = store.read_bytes(f"{bundle.folder}/{name}")
                files[name] = _without_lines(name, data, subjects)
    texts = {name.removeprefix(_PREDICTIONS): data for name, data in files.items() if name.startswith(_PREDICTIONS)}
    files[details["zip"]] = zip_bytes(texts)
    for name, data in files.items():
        store.write_bytes(f"{bundle.folder}/{name}", data)
    for name in gone & set(bundle.files):
        store.remove(f"{bundle.folder}/{name}")
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    made_from = fingerprint(stage="forget_results", submission=bundle.fingerprint, files=digests)
    write_manifest(store, Bundle(bundle.folder, made_from, digests, details))


def _without_lines(name: str, data: bytes, subjects: Collection[str]) -> bytes:
    """A file without the rows that name one of the subjects; those of other subjects' own files name nobody."""
    if name == "coverage.csv":
        rows = csv.reader(io.StringIO(data.decode()))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(row for row in rows if row[0] not in subjects)
        return text.getvalue().encode()
    if data.startswith(b"image"):
        starts = tuple(f"{subject}/".encode() for subject in subjects)
        return b"".join(line for line in data.splitlines(keepends=True) if not line.startswith(starts))
    return data


@dataclass(frozen=True)
class Predictions:
    """Files of predictions in one folder, by name, and subjects that its record names."""

    target: Store
    files: list[str]
    size_bytes: int
    recorded: list[str]


def find_predictions(target: Store, subjects: Sequence[str]) -> Predictions:
    """What a folder of predictions has of these subjects; what was written by hand under such a name counts as well."""
    states = {name: file_state(location(target.locate(name))) for one in subjects for name in prediction_files(one)}
    found = {name: state[0] for name, state in states.items() if state[0] >= 0}
    return Predictions(target, list(found), sum(found.values()), sorted(set(subjects) & set(read_record(target))))


def remove_predictions(found: Predictions) -> None:
    """Remove the files, then what the record says of them."""
    for name in found.files:
        found.target.remove(name)
    if found.recorded:
        record = read_record(found.target)
        write_record(found.target, {name: entry for name, entry in record.items() if name not in found.recorded})
    if found.target.is_local:
        found.target.remove_folder(UNFINISHED)
