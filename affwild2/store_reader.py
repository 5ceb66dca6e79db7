"""Read the datasets of a store as tables."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from affwild2.tables import Format, choose_name, choose_names, convert_table, list_names, read_rows, with_column
from data_contracts.errors import InputError
from data_contracts.store.contents import read_contents, require_store
from data_contracts.store.store import Store
from data_contracts.vocabulary import BRANCHES_OF_TASK, TASKS, TaskName

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from data_contracts.store.manifest import Manifest, StoredUnit, UnitKey

_SETS = ("train", "validation")


def open_store(url: "str | Path") -> "StoreReader":
    """Open a store for reading: a path, ``file://`` or ``s3://`` URL.

    Raises:
        InputError: there is no store at the URL.
    """
    return StoreReader(url)


class StoreReader:
    """Reads a store. Rows of units that are complete when a method is called; runs may write meanwhile.

    Every method takes ``to``: ``"arrow"`` (the default), ``"pandas"`` or ``"polars"``.
    """

    def __init__(self, url: "str | Path") -> None:
        self._store = Store(str(url))
        self._store.check_reachable()
        require_store(self._store)

    @property
    def url(self) -> str:
        """The absolute path or URL of the store."""
        return self._store.root

    def __repr__(self) -> str:
        return f"affwild2.open_store({self.url!r})"

    def contents(self, *, to: Format = "arrow") -> Any:
        """Return what the store holds.

        Returns:
            A row per dataset and variant: ``dataset``, ``variant``, ``units``, ``rows``, ``megabytes``, ``failed``
            (units whose last try failed).
        """
        import pyarrow as pa

        found = read_contents(self._store).variants
        rows = [
            [one.dataset, one.variant, one.units, one.rows, round(one.size_bytes / 1e6, 1), one.failed] for one in found
        ]
        names = ["dataset", "variant", "units", "rows", "megabytes", "failed"]
        types = [pa.string(), pa.string(), pa.int64(), pa.int64(), pa.float64(), pa.int64()]
        return convert_table(_table_of(rows, names, types), to)

    def heads(self, *, to: Format = "arrow") -> Any:
        """Return the heads of the store and their validation scores.

        Returns:
            A row per head: ``head``, ``task``, ``recipe``, ``backbone``, ``source`` (variants of its features),
            ``metric``, and the scores ``untuned``, ``in_sample`` and ``held_out``: on the validation set before tuning,
            on the subjects that tuning used, and on subjects that it did not use; null without labels.
        """
        import pyarrow as pa

        from data_contracts.details.heads import HeadDetails, PostprocessingDetails
        from data_contracts.store.bundles import list_bundles

        rules = [PostprocessingDetails.of(one) for one in list_bundles(self._store, "postprocessing")]
        tuned = {one.head: one.figures for one in rules}
        rows: list[list[object]] = []
        for bundle in list_bundles(self._store, "heads"):
            head, figures = HeadDetails.of(bundle), tuned.get(bundle.name)
            steps = (figures.untuned, figures.tuned, figures.held_out) if figures else (None, None, None)
            scores = [step.get(head.figure) if step else None for step in steps]
            rows.append([bundle.name, head.task, head.recipe, head.backbone, head.source, head.figure, *scores])
        names = ["head", "task", "recipe", "backbone", "source", "metric", "untuned", "in_sample", "held_out"]
        return convert_table(_table_of(rows, names, [pa.string()] * 6 + [pa.float64()] * 3), to)

    def features(
        self,
        subjects: str | Iterable[str] | None = None,
        *,
        backbone: str | None = None,
        source: str | None = None,
        embeddings: bool = True,
        to: Format = "arrow",
    ) -> Any:
        """Return the features of subjects.

        Args:
            subjects: a name or names; None: all, which are 8 GB for Aff-Wild2 and embeddings of 1280 numbers.
            backbone, source: variants, with or without their digits; None: the only one.
            embeddings: whether to read the embeddings, which are most of the bytes.

        Returns:
            A row per frame, by subject and frame: ``subject``, ``frame`` (from 1), ``has_face``, ``embedding``
            (float16 [D]), ``logits`` (float32 [C]). Embedding and logits are null without a face. Imported features
            may have no logits.

        Raises:
            InputError: a subject or variant does not exist, or several variants do and none is named.
        """
        from tasks.fit.subject_features import list_features

        found = list_features(self._store)
        where = f"features in {self.url}"
        name = choose_name("backbone", backbone, {one.backbone for one in found}, where=where)
        found = [one for one in found if one.backbone == name]
        faces = choose_name("source", source, {one.source for one in found}, where=f"{where}, backbone {name}")
        variant = next(one for one in found if one.source == faces)
        wanted = choose_names("subject", subjects, variant.subjects, where=f"{where}, {name}, {faces}")
        columns = ["frame", "has_face", *(["embedding"] if embeddings else [])]
        if "logits" in self._store.schema_of(*next(iter(variant.subjects.values()))[0]).names:
            columns.append("logits")
        return convert_table(self._read({one: variant.subjects[one] for one in wanted}, "subject", columns), to)

    def labels(
        self,
        task: TaskName,
        *,
        set: str | None = None,
        subjects: str | Iterable[str] | None = None,
        to: Format = "arrow",
    ) -> Any:
        """Return the official annotations of a task.

        Args:
            task: ``expr``, ``va``, ``au`` or ``mtl``.
            set: ``train`` or ``validation``; None: both.
            subjects: a name or names; None: all.

        Returns:
            A row per line of the annotations: ``set``, ``row`` (position in the set), ``subject``, ``frame`` (from 1),
            and the labels of the task: ``expression`` (index into ``affwild2.EXPRESSIONS``), ``valence`` and
            ``arousal`` (-1..1), ``AU1`` ... ``AU26`` (0 or 1). Invalid labels are null.

        Raises:
            InputError: unknown task, set or subject, or there are no labels of the task.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        from data_contracts.schemas.labels import LABEL_COLUMNS

        if task not in TASKS:
            raise InputError(f"task {task!r}: expected one of {', '.join(TASKS)}")
        if set is not None and set not in _SETS:
            raise InputError(f"set {set!r}: expected one of {', '.join(_SETS)}, or None for both")
        found = {key.value("set"): (key, one) for key, one in self._store.manifests("labels", task=task).items()}
        chosen = [name for name in _SETS if name in found and set in (None, name)]
        if not chosen:
            raise InputError(
                f"labels in {self.url}: expected labels of {task}{f' ({set})' if set else ''}, found "
                f"{self._describe_labels()}; affwild2 fit imports them"
            )
        names = ["row", "subject", "frame"]
        names += [one.name for branch in BRANCHES_OF_TASK[task] for one in LABEL_COLUMNS[branch]]
        tables = [with_column(self._read_unit(*found[name], names), "set", name) for name in chosen]
        table = pa.concat_tables(tables)
        if subjects is not None:
            known = pc.unique(table["subject"]).to_pylist()
            wanted = choose_names("subject", subjects, known, where=f"labels of {task} in {self.url}")
            table = table.filter(pc.is_in(table["subject"], pa.array(wanted)))
        return convert_table(table, to)

    def _describe_labels(self) -> str:
        keys = self._store.manifests("labels")
        return list_names(sorted(f"{key.value('task')} {key.value('set')}" for key in keys))

    def outputs(
        self,
        head: str | None = None,
        *,
        subjects: str | Iterable[str] | None = None,
        source: str | None = None,
        to: Format = "arrow",
    ) -> Any:
        """Return the outputs of a head, before smoothing and decisions.

        Args:
            head: its name, with or without its digits, or the beginning; None: the only one with outputs.
            subjects: a name or names; None: all.
            source: faces variant; None: the only one.

        Returns:
            A row per frame, by subject and frame: ``subject``, ``frame`` (from 1), ``has_face``, and by task
            ``p_neutral`` ... ``p_other`` (0..1, sum 1), ``valence_value`` and ``arousal_value`` (-1..1), ``p_au1`` ...
            ``p_au26`` (0..1), all float32; null without a face.

        Raises:
            InputError: a head, subject or source does not exist, or several do and none is named.
        """
        from data_contracts.store.manifest import StoredUnit

        units = self._store.manifests("outputs")
        where = f"outputs in {self.url}"
        name = choose_name("head", head, {key.value("head") for key in units}, where=where)
        sources = {key.value("source") for key in units if key.value("head") == name}
        faces = choose_name("source", source, sources, where=f"{where}, head {name}")
        of_subjects: dict[str, list[StoredUnit]] = {}
        for key, manifest in units.items():
            if (key.value("head"), key.value("source")) == (name, faces):
                of_subjects.setdefault(key.value("subject"), []).append(StoredUnit(key, manifest))
        wanted = choose_names("subject", subjects, of_subjects, where=f"{where}, {name}, {faces}")
        return convert_table(self._read({one: of_subjects[one] for one in wanted}, "subject", None), to)

    def _read(self, units: "dict[str, list[StoredUnit]]", name: str, columns: Sequence[str] | None) -> "pa.Table":
        import pyarrow as pa

        return pa.concat_tables(
            with_column(self._read_unit(key, manifest, columns), name, value)
            for value, of_value in units.items()
            for key, manifest in of_value
        )

    def _read_unit(self, key: "UnitKey", manifest: "Manifest", columns: Sequence[str] | None) -> "pa.Table":
        path = f"{key.folder}/{manifest.part}"
        return read_rows(self._store, path, size_bytes=manifest.part_bytes, columns=columns)


def _table_of(rows: Sequence[Sequence[object]], names: Sequence[str], types: "Sequence[pa.DataType]") -> "pa.Table":
    import pyarrow as pa

    columns = [pa.array([row[number] for row in rows], kind) for number, kind in enumerate(types)]
    return pa.table(columns, names=list(names))
