"""Read the files of a submission from a zip, a folder or a text file, and report those that cannot be read."""

import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import IO

from data_contracts.challenge.test_lists import is_plain_name
from data_contracts.errors import InputError, counted
from data_contracts.files.account import is_harmless
from data_contracts.files.archives import TRUNCATED_ZIP, fault_of_zip
from data_contracts.files.inputs import MAX_TEXT_BYTES, list_entries, reading_inputs
from data_contracts.files.locations import Location
from data_contracts.vocabulary import SIMULATED_NOTICE, is_simulated

# Folder of text files in a folder that ``submit`` writes.
PREDICTIONS_FOLDER = "predictions"
_FAULTS_PER_KIND = 5
_MAX_ZIP_FILES = 10_000
_MAX_ZIP_BYTES = 4 * MAX_TEXT_BYTES
# Maximum size of a zip's list of files: zipfile reads it at once, into objects that are ten times as large.
_MAX_ZIP_LIST_BYTES = 4 << 20
# Errors that zipfile raises for damaged, encrypted or unsupported archives.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, RuntimeError, OSError, EOFError, ValueError, OverflowError)


@dataclass(frozen=True)
class Fault:
    """One fault of a submission. Line 0 stands for the whole file."""

    file: str
    line: int
    cause: str

    def __str__(self) -> str:
        return f"{self.file}{f': line {self.line}' if self.line else ''}: {self.cause}"


def first_few(faults: Iterable[Fault]) -> list[Fault]:
    """Return the first faults of a kind, followed by one that says that there are more."""
    found = list(islice(faults, _FAULTS_PER_KIND + 1))
    if len(found) > _FAULTS_PER_KIND:
        last = found[-1]
        found[-1] = Fault(last.file, last.line, "more faults like these, from here on, are not listed")
    return found


def read_files(path: Location) -> tuple[dict[str, bytes], list[Fault]]:
    """Return the text files of a submission by name, and the faults of those that cannot be read.

    ``path``: a zip, a folder of text files, a folder that ``submit`` wrote, or one text file.

    Raises:
        InputError: there is nothing at the path, or a folder without a submission.
    """
    try:
        with reading_inputs(path):
            return _read_folder(path) if path.is_dir() else _read_file(path)
    except OSError as error:
        raise InputError(f"{path}: expected a submission (zip, folder or text file), got: {error.strerror}") from error


def is_marked_simulated(path: Location) -> bool:
    """Return whether a submission is marked as simulated: by its name, or by the comment of its zip."""
    try:
        with reading_inputs(path):
            inside = _entries(path) if path.is_dir() else [path]
            return any(is_simulated(one.name) or _has_comment(one) for one in [path, *inside])
    except OSError:
        # ``read_files`` reports the cause.
        return False


def _has_comment(path: Location) -> bool:
    if path.suffix.lower() != ".zip":
        return False
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            return archive.comment == SIMULATED_NOTICE.encode()
    except _ZIP_ERRORS:
        return False


def _read_file(path: Location) -> tuple[dict[str, bytes], list[Fault]]:
    with path.open("rb") as file:
        cause = fault_of_zip(file)
        if cause is None:
            return _read_zip(path.name, file)
        if path.suffix.lower() == ".zip" or cause == TRUNCATED_ZIP:
            return {}, [Fault(path.name, 0, f"expected a zip, got {cause}")]
    return {path.name: _read_text(path)}, []


def _read_folder(path: Location) -> tuple[dict[str, bytes], list[Fault]]:
    inside = _entries(path)
    zips = [p for p in inside if p.suffix.lower() == ".zip"]
    texts = [p for p in inside if p.suffix.lower() == ".txt" and p.is_file()]
    if predictions := next((p for p in inside if p.name == PREDICTIONS_FOLDER and p.is_dir()), None):
        # A folder that ``submit`` wrote. Other text files in it are not part of the submission.
        faults = [Fault(p.name, 0, f"expected text files in {PREDICTIONS_FOLDER} and the zip only") for p in texts]
        files, more = _read_zip_of_folder(path, zips, predictions) if zips else _read_folder(predictions)
        return files, faults + more
    if zips and not texts:
        return _read_zip_of_folder(path, zips, None)
    faults = [Fault(p.name, 0, "expected files only, got a folder") for p in inside if not p.is_file()]
    sizes = {p: p.stat().st_size for p in inside if p.is_file()}
    if len(sizes) > _MAX_ZIP_FILES or sum(sizes.values()) > _MAX_ZIP_BYTES:
        raise InputError(
            f"{path}: expected a submission (zip, folder of text files, or text file), got a folder of "
            f"{counted(len(sizes), 'file')} of {sum(sizes.values()):,} bytes; pass another folder"
        )
    files = {p.name: _read_text(p) for p in sizes}
    if faults and not files:
        raise InputError(
            f"{path}: expected a submission (zip, folder of text files, or text file), got a folder that contains "
            f"only folders ({', '.join(fault.file for fault in faults[:3])}); pass one of them"
        )
    return files, faults


def _entries(folder: Location) -> list[Location]:
    return [entry for entry in list_entries(folder) if not is_harmless(entry.name)]


def _read_zip_of_folder(
    folder: Location, zips: Sequence[Location], predictions: Location | None
) -> tuple[dict[str, bytes], list[Fault]]:
    """Read the zip of a folder. The text files in ``predictions`` must be those of the zip."""
    if len(zips) > 1:
        names = ", ".join(one.name for one in zips[:3])
        raise InputError(f"{folder}: expected one submission, got {counted(len(zips), 'zip')} ({names}); pass one")
    (packed,) = zips
    files, faults = _read_file(packed)
    if files and predictions:
        beside = {one.name: _read_text(one) for one in _entries(predictions) if one.is_file()}
        changed = sorted(name for name in {*files, *beside} if files.get(name) != beside.get(name))
        faults += first_few(
            Fault(f"{PREDICTIONS_FOLDER}/{name}", 0, _difference(name, files, beside, packed)) for name in changed
        )
    return files, faults


def _difference(name: str, files: Mapping[str, bytes], beside: Mapping[str, bytes], packed: Location) -> str:
    if name not in files:
        return f"not in {packed.name}"
    return f"expected the file that {packed.name} contains, {'got another' if name in beside else 'found none'}"


def _read_text(path: Location) -> bytes:
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise InputError(f"{path}: expected a text file of predictions, got {path.stat().st_size:,} bytes")
    return path.read_bytes()


def _read_zip(name: str, file: IO[bytes]) -> tuple[dict[str, bytes], list[Fault]]:
    files: dict[str, bytes] = {}
    faults: list[Fault] = []
    try:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
        if end and (size := end[zipfile._ECD_SIZE]) > _MAX_ZIP_LIST_BYTES:  # type: ignore[attr-defined]
            return {}, [Fault(name, 0, f"expected a submission, got a zip with a list of files of {size:,} bytes")]
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            total = sum(entry.file_size for entry in entries)
            if len(entries) > _MAX_ZIP_FILES or total > _MAX_ZIP_BYTES:
                return {}, [
                    Fault(name, 0, f"expected a submission, got {counted(len(entries), 'file')} of {total:,} bytes")
                ]
            for entry in entries:
                cause = _fault_of_entry(entry, files)
                if cause:
                    faults.append(Fault(entry.filename, 0, cause))
                    continue
                try:
                    files[entry.filename] = archive.read(entry)
                except _ZIP_ERRORS as error:
                    faults.append(Fault(entry.filename, 0, f"expected a readable file, got: {error}"))
    except _ZIP_ERRORS as error:
        faults.append(Fault(name, 0, f"expected a zip that can be read, got: {error}"))
    return files, faults


def _fault_of_entry(entry: zipfile.ZipInfo, files: Mapping[str, bytes]) -> str | None:
    name = entry.filename
    if name.endswith("/"):
        return "expected files only, got a folder inside the zip"
    if not is_plain_name(name):
        return "expected a plain file name, got a path inside the zip"
    if name in files:
        return "expected each file once, got it twice in the zip"
    if entry.file_size > MAX_TEXT_BYTES:
        return f"expected a text file, got {entry.file_size:,} bytes"
    return None
