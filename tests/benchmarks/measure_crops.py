"""Processor time per frame of the stages of ``score``, and bytes per face, with and without stored crops.

    python measure_crops.py VIDEO...

All units run in this process, so that its processor time counts all of them. Runs with and without crops take turns.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from data_contracts.files.locations import location
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND
from flows.parameters import DEFAULT_BACKBONE
from models.faces.tracking import TrackingParams
from tasks.backbones import BackboneChoice
from tasks.extract import (
    assign_subjects,
    crop_faces,
    embed_faces,
    embed_other_faces,
    embed_segments,
    identify_persons,
    index_videos,
)
from tasks.units import run_unit

_ROUNDS = 3
_DATASETS = ("faces", "face_features", "features", "other_features")


def main() -> None:
    """Measure each video, and print the medians."""
    for video in map(Path, sys.argv[1:]):
        measured = [[_measure(video, keep_crops=one) for one in (True, False)] for _ in range(_ROUNDS)]
        for option, rounds in zip(("--crops", "--no-crops"), zip(*measured, strict=True), strict=True):
            ms, bytes_per_face = (statistics.median(values) for values in zip(*rounds, strict=True))
            print(f"{video.name} {option}: {ms:.1f} ms per frame, {bytes_per_face:,.0f} bytes per face")


def _measure(video: Path, *, keep_crops: bool) -> tuple[float, float]:
    """Return milliseconds of processor time per frame, and bytes in the store per face."""
    with tempfile.TemporaryDirectory() as folder:
        store, started = Store(folder), time.process_time()
        source = _extract(store, video, crop_faces.CropParams(keep_crops=keep_crops))
        seconds = time.process_time() - started
        faces = sum(manifest.counts[FACE_FOUND] for manifest in store.manifests("faces", source=source).values())
        frames = index_videos.details_of_videos(store)["clip"].frame_count
        paths = (path for name in _DATASETS for path in Path(folder, name).rglob("*.parquet"))
        return 1000 * seconds / frames, sum(path.stat().st_size for path in paths) / faces


def _extract(store: Store, video: Path, params: crop_faces.CropParams) -> str:
    """Compute the features of all faces and the persons of a video; return the faces variant."""
    source, backbone = crop_faces.source_of(params), BackboneChoice.find(DEFAULT_BACKBONE, None)

    def run(module, units):
        for unit in units:
            report = run_unit(store.url, module.compute, unit)
            assert report.cause is None, report

    run(index_videos, index_videos.plan_index_videos({"clip": location(str(video))}))
    segments = crop_faces.plan_crop_faces(index_videos.indexed_videos(store), params=params)
    if params.keep_crops:
        run(crop_faces, segments)
    else:
        run(embed_segments, embed_segments.plan_embed_segments(store, segments, backbone=backbone))
    cropped, tracking = crop_faces.cropped_videos(store, segments), TrackingParams()
    run(assign_subjects, assign_subjects.plan_assign_subjects(cropped, source=source, subjects={}, params=tracking))
    subjects = embed_faces.subjects_of_source(store, source)
    if params.keep_crops:
        settings = {"source": source, "backbone": backbone}
        run(embed_faces, embed_faces.plan_embed_faces(subjects, **settings))
        run(embed_other_faces, embed_other_faces.plan_embed_other_faces(store, subjects, **settings))
    run(identify_persons, identify_persons.plan_identify_persons(store, subjects, source=source))
    return source


if __name__ == "__main__":
    main()
