"""Stage ``import_labels``: read the organisers' annotation files into one table per task and set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_contracts.challenge.annotations import annotation_files, check_readable, read_annotations
from data_contracts.details.datasets import LabelsDetails
from data_contracts.errors import InputError
from data_contracts.files.account import InputAccount
from data_contracts.files.locations import Location, location
from data_contracts.schemas.labels import LABELS
from data_contracts.store.fingerprint import digest_of_file, fingerprint
from data_contracts.store.manifest import Manifest, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import SetName, TaskName
from tasks.units import Product, Unit, stored_units

CODE_VERSION = 2


@dataclass(frozen=True)
class ImportLabelsArgs:
    """The organisers' annotation folder (path or URL), and the task and set to read."""

    annotations: str
    task: TaskName
    set_name: SetName


def labels_key(task: TaskName, set_name: SetName) -> UnitKey:
    """Return the key of the labels of a set for a task."""
    return UnitKey("labels", (("task", task), ("set", set_name)))


def plan_import_labels(
    annotations: Location, *, task: TaskName, sets: tuple[SetName, ...]
) -> list[Unit[ImportLabelsArgs]]:
    """Plan one unit per set. It depends on the names and bytes of the files, not on their times.

    Raises:
        InputError: the folder has no annotation files of that task and set, or cannot be read.
    """
    units = []
    for set_name in sets:
        files = annotation_files(annotations, task=task, set_name=set_name).files
        digests = [(path.name, _digest(path)) for path in files]
        unit_fingerprint = fingerprint(
            stage="import_labels", version=CODE_VERSION, task=task, set=set_name, files=digests
        )
        arguments = ImportLabelsArgs(str(annotations), task, set_name)
        units.append(Unit(labels_key(task, set_name), unit_fingerprint, arguments))
    return units


def _digest(path: Location) -> str:
    """Return the digest of a file. ``compute`` reports a local file that cannot be read."""
    try:
        return digest_of_file(path)
    except OSError as error:
        if isinstance(path, Path):
            return f"unreadable: {error.strerror}"
        raise


def check_new_labels(store: Store, units: Sequence[Unit[ImportLabelsArgs]]) -> None:
    """Check that each set that is not imported yet has at least one readable file.

    Raises:
        InputError: no file of a set can be read; the message names the first one, and its line.
    """
    known = stored_units(store, units)
    for unit in units:
        given = unit.arguments
        if unit.key not in known:
            files = annotation_files(location(given.annotations), task=given.task, set_name=given.set_name)
            check_readable(files, task=given.task)


def compute(store: Store, unit: Unit[ImportLabelsArgs]) -> Product:
    """Read one set. Files in another format are left out and reported as problems of the unit.

    Raises:
        InputError: no file is left; the message names the first file, and its line.
    """
    given = unit.arguments
    found = read_annotations(location(given.annotations), task=given.task, set_name=given.set_name)
    product = Product(LABELS, [found.table])
    product.problems += [fault.line for fault in found.faults]
    product.counts["label lines"] = found.table.num_rows
    product.details = LabelsDetails(
        subjects=tuple(sorted(set(found.table["subject"].to_pylist()))),
        annotations=given.annotations,
        skipped_files=tuple(fault.path.name for fault in found.faults),
    )
    return product


def imported_labels(store: Store, units: Sequence[Unit[ImportLabelsArgs]]) -> dict[SetName, Manifest]:
    """Return the manifest of each planned set. Labels that were imported from other files do not count.

    Raises:
        InputError: a set was not imported.
    """
    known = stored_units(store, units)
    found: dict[SetName, Manifest] = {}
    for unit in units:
        given = unit.arguments
        if unit.key not in known:
            failure = store.failure_of(unit.key)
            raise InputError(
                f"{given.annotations}: expected labels of {given.task} {given.set_name}, but their import failed: "
                f"{failure.cause if failure else 'it was not tried'}"
            )
        found[given.set_name] = known[unit.key].manifest
    return found


def account_of_labels(store: Store, units: Sequence[Unit[ImportLabelsArgs]]) -> InputAccount:
    """Return which files of an annotation folder were found, used and skipped. The units of one folder must exist."""
    given = units[0].arguments
    folder, labels = location(given.annotations), imported_labels(store, units)
    account = InputAccount(f"annotations of {given.task}", folder)
    for set_name, manifest in labels.items():
        found = annotation_files(folder, task=given.task, set_name=set_name)
        damaged = set(LabelsDetails.of(manifest).skipped_files)
        for path in found.files:
            if path.name in damaged:
                account.skip(path, "files that cannot be read or have another format")
            else:
                account.use()
        for path, reason in found.skipped:
            account.skip(path, reason)
    return account
