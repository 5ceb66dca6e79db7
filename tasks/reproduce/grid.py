"""The grid of the paper's tables: which heads are fitted on which features, in which order."""

from collections.abc import Mapping, Sequence

from data_contracts.store.bundles import Bundle, list_bundles
from data_contracts.store.manifest import Manifest
from data_contracts.store.store import Store
from data_contracts.vocabulary import SetName, TaskName
from tasks.fit.subject_features import FeaturesVariant
from tasks.reproduce.fit_cell import CELLS, FitCellArgs, plan_fit_cell
from tasks.reproduce.published import BEST_AU, BEST_EXPR, BEST_MTL, BEST_VA, TABLES, Method
from tasks.units import Job

# The heads that the author submitted; they are also fitted on the training and validation sets.
SUBMITTED = (BEST_EXPR, BEST_VA, BEST_AU, BEST_MTL)
# Tasks with the most rows come first, so that workers finish at about the same time.
_TASKS: tuple[TaskName, ...] = ("au", "va", "expr", "mtl")


def methods_of(task: TaskName) -> list[Method]:
    """Return the different heads of a task in the tables, those with a hidden layer first: their fits take longest."""
    kinds = (kind.method for table in TABLES for kind in table.kinds)
    columns = (column.method for table in TABLES for column in table.columns)
    found = dict.fromkeys(method for method in (*kinds, *columns) if method and method.task == task)
    return sorted(found, key=lambda method: not method.is_hidden)


def plan_cells(
    store: Store,
    variants: Sequence[FeaturesVariant],
    labels: Mapping[TaskName, dict[SetName, Manifest]],
    *,
    seeds: int,
) -> list[Job[FitCellArgs]]:
    """Plan the fits on the training set of all features variants, for the tasks that have labels.

    Fits on the same rows follow one another.

    Raises:
        InputError: all validation subjects of a task are in its training set too.
    """
    return [
        job
        for variant in variants
        for task in _TASKS
        if task in labels
        for method in methods_of(task)
        for job in plan_fit_cell(store, variant, method, labels=labels[task], seeds=seeds)
    ]


def list_cells(store: Store) -> list[Bundle]:
    """Return all complete cells of a store, by name, whatever features and labels they were made from."""
    return list_bundles(store, CELLS)
