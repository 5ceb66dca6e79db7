"""Read and plot a folder of predictions."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from affwild2.tables import Format, choose_names, convert_table, list_names, read_rows, with_column
from affwild2.timeline import Timeline, draw_timeline
from data_contracts.errors import InputError
from data_contracts.store.store import Store
from data_contracts.vocabulary import BRANCHES
from tasks.results.prediction_folder import IMAGES_TABLE, SUMMARY_TABLE

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from affwild2.store_reader import StoreReader

_SUFFIX = ".parquet"


def open_predictions(folder: "str | Path") -> "Predictions":
    """Open a folder that ``score`` or ``rescore`` wrote: a path, ``file://`` or ``s3://`` URL.

    Raises:
        InputError: the folder has no predictions.
    """
    return Predictions(folder)


class Predictions:
    """The predictions in a folder. A person is numbered from 1 in each video, by first appearance.

    Methods take ``to``: ``"arrow"`` (the default), ``"pandas"`` or ``"polars"``.
    """

    def __init__(self, folder: "str | Path") -> None:
        self._files = Store(str(folder))
        if not (self.videos or self._files.exists(f"{IMAGES_TABLE}{_SUFFIX}")):
            raise InputError(
                f"{self.folder}: expected predictions (VIDEO.parquet) in this folder, found none; "
                "affwild2.score writes them"
            )

    @property
    def folder(self) -> str:
        """The absolute path or URL of the folder."""
        return self._files.root

    @property
    def videos(self) -> list[str]:
        """Sorted names of the videos with predictions: their file names without suffix."""
        return [name.removesuffix(_SUFFIX) for name in self._files.list_folder("") if name.endswith(_SUFFIX)]

    def __repr__(self) -> str:
        return f"affwild2.open_predictions({self.folder!r})"

    def load(
        self, videos: str | Iterable[str] | None = None, *, person: int | None = None, to: Format = "arrow"
    ) -> Any:
        """Return predictions.

        Args:
            videos: a name or names; None: all of the folder.
            person: number of a person; None: all, and the frames without a person.

        Returns:
            A row per frame and person, by video, person and frame: ``video``, and the columns that
            docs/data_contracts.md describes under "Predictions". Columns of tasks without a head are null.

        Raises:
            InputError: a video or person does not exist, or a file is damaged.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        known = self.videos
        wanted = choose_names("video", videos, known, where=self.folder)
        tables = []
        for video in wanted:
            path = f"{video}{_SUFFIX}"
            table = read_rows(self._files, path)
            tables.append(with_column(table.replace_schema_metadata(None), "video", video))
        # Files of earlier versions have fewer columns.
        table = pa.concat_tables(tables, promote_options="default")
        if person is not None:
            persons = _persons_in(table)
            if person not in persons:
                raise InputError(
                    f"{self.folder}: expected a person of {', '.join(wanted[:3])}, got {person}; found: "
                    f"{list_names(list(map(str, persons)))}"
                )
            table = table.filter(pc.equal(table["person"], person))
        return convert_table(table, to)

    def summary(self, *, to: Format = "arrow") -> Any:
        """Return the summary of the folder: a row per video and person (docs/data_contracts.md, "Predictions").

        Raises:
            InputError: the folder has no summary, because an earlier version wrote it.
        """
        path = f"{SUMMARY_TABLE}{_SUFFIX}"
        if not self._files.exists(path):
            raise InputError(f"{self.folder}: expected {path}, found none; run affwild2 score again, which writes it")
        return convert_table(read_rows(self._files, path), to)

    def images(self, *, to: Format = "arrow") -> Any:
        """Return the predictions of images: a row per image and face (docs/data_contracts.md, "Images").

        Raises:
            InputError: no image was scored into the folder.
        """
        path = f"{IMAGES_TABLE}{_SUFFIX}"
        if not self._files.exists(path):
            raise InputError(f"{self.folder}: expected {path}, found none; affwild2.score writes it for images")
        return convert_table(read_rows(self._files, path), to)

    def plot(
        self, video: str | None = None, *, person: int | None = None, labels: "StoreReader | None" = None
    ) -> Timeline:
        """Plot a timeline: valence and arousal, expressions, and action units over seconds.

        Args:
            video: its name; None: the only one of the folder.
            person: None: the one with the most frames that show a face.
            labels: store whose annotations of the video are drawn beside the predictions.

        Returns:
            A picture that Jupyter and VS Code show, and saved notebooks contain; ``save`` writes it to a file.

        Raises:
            InputError: the video or person does not exist, or several videos do and none is named.
        """
        if video is None and len(self.videos) != 1:
            raise InputError(f"{self.folder}: expected the name of a video, got none; found: {list_names(self.videos)}")
        name = self.videos[0] if video is None else video
        table = self.load(name, person=person)
        person = person or _main_person(table)
        if person is not None:
            import pyarrow.compute as pc

            table = table.filter(pc.equal(table["person"], person))
        of_labels = {branch: found for branch in BRANCHES if (found := _labels_of(labels, branch, name)) is not None}
        return draw_timeline(table, title=f"{name}, person {person}" if person else name, labels=of_labels)


def _persons_in(table: "pa.Table") -> list[int]:
    import pyarrow.compute as pc

    if "person" not in table.column_names:
        return []
    return sorted(one for one in pc.unique(table["person"]).to_pylist() if one is not None)


def _main_person(table: "pa.Table") -> int | None:
    """Return the person with most frames that show a face, the first of several; None without persons."""
    seen = {person: 0 for person in _persons_in(table)}
    for person, has_face in (
        zip(table["person"].to_pylist(), table["has_face"].to_pylist(), strict=True) if seen else ()
    ):
        if person is not None and has_face:
            seen[person] += 1
    return max(seen, key=lambda one: (seen[one], -one)) if seen else None


def _labels_of(store: "StoreReader | None", task: Any, subject: str) -> "pa.Table | None":
    if store is None:
        return None
    try:
        return store.labels(task, subjects=subject)
    except InputError:
        # The video has no labels of this task.
        return None
