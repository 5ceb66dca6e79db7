"""Stage ``fit_cell``: fit one head of the paper's tables with one seed, and score it as the paper does."""

import contextlib
import json
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from data_contracts.details.heads import CellDetails, LabelCoverage
from data_contracts.errors import InputError
from data_contracts.store.bundles import Bundle
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import Manifest
from data_contracts.store.store import Store
from data_contracts.vocabulary import SetName
from models.decisions.subject_outputs import SubjectOutputs
from models.engines.devices import default_device
from models.heads.head import Head, head_to_bytes
from models.heads.recipes import TaskRecipe
from models.recipes.registry import find_recipe
from models.tuning.published import score_published
from tasks.fit.fit_head import FitHeadArgs, HeadChoice, plan_fit_head
from tasks.fit.import_labels import labels_key
from tasks.fit.predict_outputs import predict_subject
from tasks.fit.subject_features import FeaturesVariant
from tasks.fit.tune_postprocessing import join_labels
from tasks.reproduce.published import Method
from tasks.units import Files, Job

if TYPE_CHECKING:
    from models.heads.fitting import FittedHead
    from models.heads.rows import TrainingRows

CODE_VERSION = 2
CELLS = "reproduction/cells"
HIDDEN_UNITS = 128
# Rows that the next cell can use stay for this time.
_KEPT_SECONDS = 120.0


@dataclass(frozen=True)
class FitCellArgs:
    """A cell, and what its head is fitted on (``fit``).

    ``rows``: hash of everything that the rows of the sets depend on.
    """

    method: Method
    seed: int
    fit: FitHeadArgs
    rows: str


def plan_fit_cell(
    store: Store,
    variant: FeaturesVariant,
    method: Method,
    *,
    labels: dict[SetName, Manifest],
    seeds: int,
) -> list[Job[FitCellArgs]]:
    """Plan one job per seed, to fit on the training set, and keep the epoch that is best on the validation set.

    Raises:
        InputError: all validation subjects are in the training set too.
    """
    hidden_units = HIDDEN_UNITS if method.is_hidden else 0
    choice = HeadChoice(method.task, find_recipe("paper"), method.features, hidden_units, seeds=1)
    head = plan_fit_head(store, variant, choice, labels=labels)
    given = head.arguments
    rows = fingerprint(
        labels=[(name, manifest.identity) for name, manifest in labels.items()],
        features=[(subject, given.features.identity(subject)) for subject in given.features.subjects],
        excluded=given.split.excluded,
    )
    name = f"{method.task}-{method.features}-{'hidden' if method.is_hidden else 'linear'}"
    return [
        Job(
            f"{CELLS}/{variant.backbone}-{variant.source}-{name}-seed{seed}",
            fingerprint(stage="fit_cell", version=CODE_VERSION, head=head.fingerprint, seed=seed),
            FitCellArgs(method, seed, given, rows),
            cost=_relative_time(method, labels["train"].rows, given.choice.head_recipe(variant.origin)),
        )
        for seed in range(seeds)
    ]


def plan_fit_cell_on_all(first: Job[FitCellArgs], fitted: Bundle) -> Job[FitCellArgs]:
    """Plan the job that fits the head of a cell again on both sets, for as many epochs as were best on ``first``."""
    epochs = [CellDetails.of(fitted).best_epochs]
    arguments = replace(first.arguments, fit=replace(first.arguments.fit, epochs=epochs))
    cost = first.cost * sum(epochs[0]) / len(epochs[0]) / CellDetails.of(fitted).settings["parts"][0]["epochs"]
    return Job(f"{first.folder}-all", fingerprint(on_all=first.fingerprint, epochs=epochs), arguments, cost=cost)


def _relative_time(method: Method, rows: int, recipe: TaskRecipe) -> float:
    """Return about how long a fit takes, from the processor time of fits of all methods at scale 0.05 of Aff-Wild2."""
    linear, hidden = (1.0, 1.5) if method.features == "scores" else (2.5, 6.5)
    per_row = hidden if method.is_hidden else linear
    return rows * max(part.epochs for part in recipe.parts) * per_row


def make(store: Store, job: Job[FitCellArgs]) -> Files:
    """Fit the head of a cell, and score it on the validation set unless it is fitted on that set, too.

    Raises:
        InputError: no row has a label and a face, a branch has no label, or the features are not finite.
    """
    started, given = time.monotonic(), job.arguments.fit
    sets: dict[SetName, pa.Table] = {
        name: store.read_unit(labels_key(given.choice.task, name), manifest) for name, manifest in given.labels.items()
    }
    with _kept_rows.in_use():
        fitted, scores, coverage = _fit_and_score(store, job, sets)
    files = head_to_bytes(fitted.head)
    content = {"history": fitted.histories[0], "scores": scores}
    files["metrics.json"] = json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"
    method = job.arguments.method
    details = CellDetails(
        task=method.task,
        features=method.features,
        is_hidden=method.is_hidden,
        seed=job.arguments.seed,
        settings=asdict(given.choice.head_recipe(given.features.origin)),
        backbone=given.features.backbone,
        source=given.features.source,
        backbone_name=given.features.origin.backbone_name,
        trained_on=given.fitted_on,
        best_epochs=fitted.best_epochs[0],
        scores=scores,
        coverage=tuple(coverage),
        seconds=round(time.monotonic() - started, 3),
        fitted_in=given.precision,
    )
    return Files(files, details)


def _fit_and_score(
    store: Store, job: Job[FitCellArgs], sets: Mapping[SetName, pa.Table]
) -> tuple["FittedHead", dict[str, dict[str, float]], list[LabelCoverage]]:
    # Planning does not need torch.
    from models.heads.fitting import fit_seeds

    cell, given = job.arguments, job.arguments.fit
    train, coverage = _kept_rows.gather(store, cell, {name: sets[name] for name in given.fitted_on})
    validation = None
    if not given.epochs:
        validation, more = _kept_rows.gather(store, cell, {"validation": sets["validation"]})
        coverage = [*coverage, *more]
    try:
        fitted = fit_seeds(
            train,
            validation,
            task=given.choice.task,
            recipe=given.choice.head_recipe(given.features.origin),
            epochs=given.epochs,
            precision=given.precision,
            device=default_device(),
            first_seed=cell.seed,
        )
        scores = _score(store, given, sets["validation"], fitted.head) if validation else {}
    except ValueError as error:
        raise InputError(f"{job.name}: {error}") from error
    return fitted, scores, coverage


def _score(store: Store, given: FitHeadArgs, table: pa.Table, head: Head) -> dict[str, dict[str, float]]:
    """Predict all frames of the validation subjects, and score the published decisions."""
    task, subjects = given.choice.task, given.split.validation()

    def predict(subject: str) -> SubjectOutputs:
        present, outputs = predict_subject(store, given.features, subject, head)
        return SubjectOutputs(subject, outputs, present)

    predicted = ((name, predict(subject)) for name, subject in subjects.items())
    return score_published(join_labels(table, predicted), task=task)


class _KeptRows:
    """The rows that this process gathered last. Cells of one task and backbone, which follow one another, share them.

    Their files are deleted once they are mapped: the system frees the disk when the last array is gone, also if the
    process is killed.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, ...], tuple[TrainingRows, list[LabelCoverage]]] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the rows inside the block, and for a while after it."""
        if self._timer:
            self._timer.cancel()
        try:
            yield
        finally:
            self._timer = threading.Timer(_KEPT_SECONDS, self._forget)
            self._timer.daemon = True
            self._timer.start()

    def _forget(self) -> None:
        self._rows = {}

    def gather(
        self, store: Store, cell: FitCellArgs, tables: Mapping[SetName, pa.Table]
    ) -> tuple["TrainingRows", list[LabelCoverage]]:
        """Return the labelled rows of the sets with a face; see ``gather_rows``."""
        # Planning does not need torch.
        from tasks.fit.training_rows import gather_rows

        with_embeddings = cell.method.features != "scores"
        sets = (store.root, cell.rows, *tables)
        with self._lock:
            # Rows with embeddings serve all heads.
            key = sets if with_embeddings or sets in self._rows else (*sets, "scores")
            if key not in self._rows:
                same = {old: rows for old, rows in self._rows.items() if old[:2] == key[:2]}
                self._rows = dict(list(same.items())[-1:])
                with tempfile.TemporaryDirectory(prefix="affwild2-rows-") as folder:
                    self._rows[key] = gather_rows(
                        store,
                        cell.fit.features,
                        tables,
                        task=cell.method.task,
                        split=cell.fit.split,
                        folder=Path(folder),
                        with_embeddings=with_embeddings,
                    )
            return self._rows[key]


_kept_rows = _KeptRows()
