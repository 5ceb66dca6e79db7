"""Stage ``import_labels``: read the organisers' annotation files into one table per task and set."""

from dataclasses import dataclass

from data_contracts.challenge.annotations import annotation_files, read_annotations
from data_contracts.files.locations import Location, location
from data_contracts.schemas import LABELS
from data_contracts.store.details import LabelsDetails
from data_contracts.store.fingerprint import digest_of_file, fingerprint
from data_contracts.store.manifest import UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import SetName, TaskName
from tasks.units import Product, Unit

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
        InputError: the folder has no annotation files of that task and set.
    """
    units = []
    for set_name in sets:
        files = annotation_files(annotations, task=task, set_name=set_name)
        digests = [(path.name, digest_of_file(path)) for path in files]
        unit_fingerprint = fingerprint(
            stage="import_labels", version=CODE_VERSION, task=task, set=set_name, files=digests
        )
        arguments = ImportLabelsArgs(str(annotations), task, set_name)
        units.append(Unit(labels_key(task, set_name), unit_fingerprint, arguments))
    return units


def compute(store: Store, unit: Unit[ImportLabelsArgs]) -> Product:
    """Read one set. Files in another format are left out and reported as problems of the unit.

    Raises:
        InputError: no file is left; the message names the first file, and its line.
    """
    given = unit.arguments
    found = read_annotations(location(given.annotations), task=given.task, set_name=given.set_name)
    product = Product(LABELS, [found.table])
    product.problems += found.faults
    product.counts["label lines"] = found.table.num_rows
    product.details = LabelsDetails(subjects=tuple(sorted(set(found.table["subject"].to_pylist()))))
    return product
