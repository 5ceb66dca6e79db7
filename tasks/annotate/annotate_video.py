"""Stage ``annotate_video``: a copy of a video with boxes, and the predictions of every person beside them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from data_contracts.errors import InputError, InvalidFileError
from data_contracts.files.inputs import check_unchanged
from data_contracts.files.locations import Location, location
from data_contracts.schemas.faces import BOX_NAMES
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.store import Store
from data_contracts.video.display import Display
from data_contracts.video.frames import read_frames
from data_contracts.video.index import VideoIndex
from data_contracts.vocabulary import ACTION_UNITS, NOT_DECODED
from models.engines.progress import track
from tasks.annotate.labels import Face, Shown
from tasks.annotate.mp4 import BLACK, Mp4Writer, new_frame, planes_of, writing_mp4
from tasks.annotate.overlay import Overlay
from tasks.annotate.sprites import Planes
from tasks.extract.index_videos import IndexedVideo, indexed_videos, read_video_index
from tasks.results.annotated_copies import AnnotatedCopy, annotated_file, read_annotated
from tasks.results.prediction_folder import prediction_files, read_record, states_in
from tasks.units import Job, WrittenFile

CODE_VERSION = 1


@dataclass(frozen=True)
class AnnotateVideoArgs:
    """A video, and the folder with its predictions. ``at_once``: number of videos that are annotated at a time."""

    video: IndexedVideo
    out: str
    at_once: int = 1


def plan_annotate_videos(store: Store, names: Collection[str], *, out: Location) -> list[Job[AnnotateVideoArgs]]:
    """Plan one job per video with recorded predictions in the folder ``out``.

    A copy is made again if the video or its predictions have changed, or if the copy itself was changed or deleted.
    """
    target, indexed = Store(out), indexed_videos(store)
    record, annotated, states, jobs = read_record(target), read_annotated(target), states_in(out), []
    for name in sorted({*names} & record.keys() & indexed.keys()):
        video, file = indexed[name], annotated_file(name)
        job_fingerprint = fingerprint(
            stage="annotate_video",
            version=CODE_VERSION,
            video=video.manifest.identity,
            frames=video.frames.identity,
            predictions=[record[name].made_from, record[name].settings],
        )
        is_made = file in states and annotated.get(name) == AnnotatedCopy(made_from=job_fingerprint, file=states[file])
        inputs = video.details.path, target.locate(prediction_files(name)[0])
        cost, arguments = float(video.details.frame_count), AnnotateVideoArgs(video, target.root)
        jobs.append(Job(file, job_fingerprint, arguments, input_files=inputs, cost=cost, is_made=is_made))
    at_once = sum(not job.is_made for job in jobs)
    return [replace(job, arguments=replace(job.arguments, at_once=at_once)) for job in jobs]


def make(store: Store, job: Job[AnnotateVideoArgs]) -> WrittenFile:
    """Write the annotated copy of one video. Only a few frames are in memory at a time.

    A frame that cannot be decoded is shown as the one before, so that the copy has the same frames.

    Raises:
        InputError: the video or its predictions are gone or have changed, or no frame can be decoded.
        StoreError: the folder of predictions cannot be written to.
    """
    video, target = job.arguments.video, Store(job.arguments.out)
    path = location(video.details.path)
    check_unchanged(path, video.details.file_state)
    index = read_video_index(store, video)
    predictions = _read_predictions(target, video.stem)
    threads = max(1, len(os.sched_getaffinity(0)) // max(1, job.arguments.at_once))
    with target.files.replacing_path(job.folder) as temporary:
        with writing_mp4(temporary, path, index, threads=threads) as writer:
            counts = _annotate(path, index, predictions, writer)
            problems = writer.finish()
        check_unchanged(path, video.details.file_state)
    lost = counts[NOT_DECODED]
    if lost:
        problems.append(
            f"{path}: {lost} of {index.frame_count} frames cannot be decoded; the copy repeats others there"
        )
    return WrittenFile(counts, problems)


def _annotate(path: Location, index: VideoIndex, predictions: _Predictions, writer: Mp4Writer) -> Counter[str]:
    display, counts = Display("yuv420p"), Counter[str]()
    copy: _Copy | None = None
    for number, frame in track(read_frames(path, index, display), "drawing: {} frames", total=index.frame_count):
        picture = display.to_planes(frame)
        copy = copy or _Copy(index, predictions, writer, *picture)
        counts[NOT_DECODED] += copy.repeat_until(number)
        copy.add(number, *picture)
        counts["frames"] += 1
    if copy is None:
        raise InvalidFileError(
            f"{path}: expected a video with frames that can be decoded, found none; replace the file"
        )
    counts[NOT_DECODED] += copy.repeat_until(index.frame_count + 1)
    return counts


class _Copy:
    """Draws the frames of a video, in their order, and writes them."""

    def __init__(
        self, index: VideoIndex, predictions: _Predictions, writer: Mp4Writer, first: VideoFrame, planes: Planes
    ) -> None:
        self._index, self._predictions, self._writer = index, predictions, writer
        height_px, width_px = planes[0].shape
        self._overlay = Overlay(width_px, height_px, first.colorspace, predictions.shown)
        self._last, self._frame = 0, first
        # Frames before the first that can be decoded are black.
        self._planes = [np.full_like(plane, BLACK[min(place, 1)]) for place, plane in enumerate(planes)]

    def add(self, number: int, frame: VideoFrame, planes: Planes) -> None:
        """Write a frame. The frame keeps the memory of its planes."""
        self._frame, self._planes = frame, planes
        faces = self._predictions.faces_in(number)
        self._write(number, faces, "" if faces else "no face")

    def repeat_until(self, number: int) -> int:
        """Show the last frame again for all frames before a number; return how many these are."""
        first = self._last + 1
        for lost in range(first, number):
            self._write(lost, (), "not decoded")
        return max(0, number - first)

    def _write(self, number: int, faces: Sequence[Face], note: str) -> None:
        shown = new_frame(self._frame, self._planes)
        footer = f"{number}  {self._index.pts_seconds[number - 1]:.2f} s  {note}".rstrip()
        self._overlay.draw(planes_of(shown), number, faces, footer)
        self._writer.write(number, shown)
        self._last = number


class _Predictions:
    """The predictions of a video: rows with a face, sorted by frame."""

    def __init__(self, table: pa.Table) -> None:
        has_box = np.asarray(table["has_face"]).astype(bool) & ~np.isnan(_floats(table, BOX_NAMES[0]))
        order = np.flatnonzero(has_box)
        order = order[np.argsort(np.asarray(table["frame"])[order], kind="stable")]
        rows = table.take(order)
        self._frame: NDArray[np.int32] = np.asarray(rows["frame"])
        self._person = rows["person"].to_pylist()
        self._box = np.stack([_floats(rows, name) for name in BOX_NAMES], axis=1)
        self._expression = rows["expression"].to_pylist()
        self._dimensions = np.stack([_floats(rows, name) for name in ("valence", "arousal")], axis=1)
        self._units = np.stack([_floats(rows, name) for name in ACTION_UNITS], axis=1)
        self._probability = [
            None if name is None else rows[f"p_{name.lower()}"][row].as_py()
            for row, name in enumerate(self._expression)
        ]
        self.shown = Shown(dial=not np.isnan(self._dimensions).all(), units=not np.isnan(self._units).all())

    def faces_in(self, frame: int) -> Sequence[Face]:
        """Return the faces in a frame."""
        first, end = np.searchsorted(self._frame, [frame, frame + 1])
        return [self._face(row) for row in range(first, end)]

    def _face(self, row: int) -> Face:
        valence, arousal = self._dimensions[row]
        units = self._units[row]
        return Face(
            person=self._person[row],
            box=tuple(self._box[row].tolist()),
            expression=self._expression[row],
            probability=self._probability[row],
            valence=None if np.isnan(valence) else float(valence),
            arousal=None if np.isnan(arousal) else float(arousal),
            units=None if np.isnan(units).any() else tuple(units > 0),
        )


def _floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    return table[name].cast(pa.float64()).combine_chunks().to_numpy(zero_copy_only=False)


def _read_predictions(target: Store, video: str) -> _Predictions:
    name = prediction_files(video)[0]
    try:
        (data,) = target.files.read_many([name])
        return _Predictions(pq.read_table(pa.BufferReader(data)))
    except (OSError, KeyError, pa.ArrowException) as error:
        raise InputError(f"{target.locate(name)}: expected predictions, got: {error}; score the video again") from error
