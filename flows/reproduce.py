"""Flow ``reproduce``: the heads of the paper's Tables 1 to 6, fitted on the features of a store, and the tables."""

from collections.abc import Sequence
from datetime import UTC, datetime

from data_contracts.challenge.layout import find_data
from data_contracts.errors import InputError
from data_contracts.files.inputs import reading_inputs
from data_contracts.store.bundles import Bundle
from data_contracts.store.manifest import Manifest
from data_contracts.store.simulations import find_simulation
from data_contracts.vocabulary import TASKS, SetName, TaskName
from flows.engine.console import console, print_line, print_table
from flows.engine.run import Run
from flows.options import takes
from flows.parameters import ReproduceParameters, scheduler_of
from tasks.fit import import_labels
from tasks.fit.import_labels import labels_key
from tasks.fit.subject_features import FeaturesVariant, list_features
from tasks.pages.write_report import write_reproduction_page
from tasks.reproduce import fit_cell
from tasks.reproduce.fit_cell import FitCellArgs, plan_fit_cell_on_all
from tasks.reproduce.grid import SUBMITTED, plan_cells
from tasks.reproduce.published import BACKBONES
from tasks.reproduce.write_tables import Reproduction, reproduction_of, write_tables
from tasks.units import Job

_SETS: tuple[SetName, ...] = ("train", "validation")


def fit_cells(run: Run, parameters: ReproduceParameters) -> Reproduction:
    """Fit the heads that are missing, and return the tables with all heads that match the features and labels.

    Raises:
        InputError: the store has no features or labels, a backbone is unknown, or annotations are unreadable.
    """
    variants = [one for one in list_features(run.store, source=parameters.source) if not one.is_imported]
    selected = _select(run, variants, parameters)
    run.is_simulated = any(variant.is_simulated for variant in selected)
    for variant in selected:
        if line := variant.describe_incomplete():
            print_line(line)
    labels, empty = _labels(run, parameters)
    planned = plan_cells(run.store, variants, labels, seeds=parameters.seeds)
    run.jobs("fit_cell", [job for job in planned if _is_wanted(job, selected, parameters)], fit_cell.make)
    fitted = _made(run, planned)
    first = [job for job in planned if job.folder in fitted and job.arguments.method in SUBMITTED]
    again = {job.folder: plan_fit_cell_on_all(job, fitted[job.folder]) for job in first}
    wanted = [again[job.folder] for job in first if _is_wanted(job, selected, parameters)]
    run.jobs("fit_cell on all", wanted, fit_cell.make)
    on_all = _made(run, list(again.values()))
    return reproduction_of(run.store, [*fitted.values(), *on_all.values()], empty=empty | _absent(run, variants))


def _select(run: Run, variants: Sequence[FeaturesVariant], parameters: ReproduceParameters) -> list[FeaturesVariant]:
    """Return the variants of the named backbones; all without names."""
    listed = ", ".join(dict.fromkeys(variant.backbone for variant in variants)) or "none"
    if not variants:
        of_source = f" of source {parameters.source}" if parameters.source else ""
        raise InputError(
            f"features{of_source} in {run.store.url}: found none; run affwild2 extract on the labelled videos first"
        )
    if parameters.backbones is None:
        return list(variants)
    selected = []
    for name in parameters.backbones:
        found = [one for one in variants if name in (one.backbone, one.origin.backbone_name)]
        if not found:
            raise InputError(
                f"--backbone {name}: expected one with features in {run.store.url}, found: {listed}; for another one "
                f"run: affwild2 extract DATA --store {run.store.url} --backbone {name}"
            )
        selected += [one for one in found if one not in selected]
    return selected


def _labels(
    run: Run, parameters: ReproduceParameters
) -> tuple[dict[TaskName, dict[SetName, Manifest]], dict[str, str]]:
    """Import labels, and return those of all tasks that the store has; and why a task has none."""
    if parameters.annotations is not None:
        _import_labels(run, parameters)
    known = run.store.manifests("labels")
    labels: dict[TaskName, dict[SetName, Manifest]] = {}
    empty: dict[str, str] = {}
    for task in TASKS:
        found = {name: known[key] for name in _SETS if (key := labels_key(task, name)) in known}
        if len(found) == len(_SETS):
            labels[task] = found
        else:
            again = f"affwild2 reproduce --store {run.store.url} --annotations DATA --task {task}"
            empty[task] = f"{task}: the store has no labels of the training and validation sets; run: {again}"
    wanted = parameters.tasks or TASKS
    if not set(wanted) & set(labels):
        raise InputError(
            f"labels of {', '.join(wanted)} in {run.store.url}: found none; pass the folder of the annotations with "
            "--annotations"
        )
    return labels, empty


def _import_labels(run: Run, parameters: ReproduceParameters) -> None:
    """Import the labels of the tasks that the annotations have.

    Raises:
        InputError: there are none, several, or unreadable ones.
    """
    assert parameters.annotations is not None
    layout = find_data(parameters.annotations)
    wanted = parameters.tasks or TASKS
    tasks = [task for task in wanted if task in layout.annotations] or wanted
    for task in tasks:
        folder = layout.annotations_of(task)
        with reading_inputs(folder):
            units = import_labels.plan_import_labels(folder, task=task, sets=_SETS)
            import_labels.check_new_labels(run.store, units)
        run.stage(f"import_labels {task}", units, import_labels.compute)
        import_labels.imported_labels(run.store, units)
        run.report_inputs(import_labels.account_of_labels(run.store, units))


def _is_wanted(job: Job[FitCellArgs], selected: Sequence[FeaturesVariant], parameters: ReproduceParameters) -> bool:
    features = job.arguments.fit.features
    variants = {(variant.backbone, variant.source) for variant in selected}
    return (features.backbone, features.source) in variants and job.arguments.method.task in (parameters.tasks or TASKS)


def _made(run: Run, jobs: Sequence[Job[FitCellArgs]]) -> dict[str, Bundle]:
    """Return the bundles of the jobs that exist as planned, by folder."""
    return {job.folder: bundle for job in jobs if (bundle := job.find(run.store))}


def _absent(run: Run, variants: Sequence[FeaturesVariant]) -> dict[str, str]:
    """Return how to get features of the paper's backbones that the store has no features of."""
    names, simulation = {variant.origin.backbone_name for variant in variants}, find_simulation(run.store)
    lines: dict[str, str] = {}
    for model, (published, simulated) in BACKBONES.items():
        if names & {published, simulated}:
            continue
        command = (
            f"affwild2 models fetch {published} && affwild2 extract DATA --store {run.store.url} --backbone {published}"
        )
        if simulation:
            folder = run.store.root.rpartition("/")[0]
            options = f"--scale {simulation.scale:g} --seed {simulation.seed} --backbone {simulated}"
            command = f"affwild2 simulate {folder} {options}"
        lines[model] = f"{model}: no features; run: {command}"
    return lines


def print_tables(found: Reproduction) -> None:
    """Print all tables and their notes. Tables that are too wide for the terminal are printed in parts."""
    for one in found.listings:
        for part in one.split(console().width):
            print_table(part.title, part.header, part.rows)
    for note in found.notes:
        print_line(note)


@takes(ReproduceParameters)
def reproduce(parameters: ReproduceParameters) -> str:
    """Fit the heads of the paper's tables, and write the tables; return the path of the Markdown file."""
    with Run(
        parameters.store, dask_address=scheduler_of(parameters), workers=parameters.workers, may_be_new=False
    ) as run:
        found = fit_cells(run, parameters)
        paths = write_tables(run.store, found)
        run.print_summary()
        print_tables(found)
        page = write_reproduction_page(run.store, found, written=datetime.now(UTC))
        for path in (*paths, page):
            print_line(f"tables: {run.store.locate(path)}")
        run.print_counts()
        run.raise_for_failures()
        return run.store.locate(paths[0])
