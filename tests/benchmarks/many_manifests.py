"""Measure ``status`` and a run with nothing to do in a store with very many units: seconds and peak memory.

``python tests/benchmarks/many_manifests.py 600 500`` generates a store of 600 videos with 500 segments each: about
600,000 manifests, planned by the stages themselves. Data files have one byte, because nothing reads them. ``status``
runs before and after the run that writes the index. ``--keep FOLDER`` generates the store there once and keeps it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from generated_store import make_videos

from data_contracts.details.datasets import FacesDetails, FeaturesDetails, SubjectsDetails, VideoDetails
from data_contracts.details.records import Details
from data_contracts.files.inputs import file_state
from data_contracts.store.manifest import Manifest, UnitKey
from data_contracts.store.manifest_index import INDEX_NAME
from data_contracts.store.store import Store
from flows.parameters import DEFAULT_BACKBONE
from models.faces.tracking import TrackingParams
from tasks.backbones import BackboneChoice
from tasks.extract import assign_subjects, crop_faces, embed_faces, index_videos

PROGRAM = str(Path(sys.executable).with_name("affwild2"))


def fill_with_manifests(root: Path, videos: Mapping[str, Path], *, segments: int) -> int:
    """Write the manifests of all units that ``extract`` makes of the videos; return their number."""
    store, params, written = Store(str(root)), crop_faces.CropParams(), 0
    source = crop_faces.source_of(params)
    frames = segments * crop_faces.SEGMENT_FRAMES

    def write(key: UnitKey, fingerprint: str, details: Details) -> None:
        nonlocal written
        folder = root / key.folder
        if not folder.is_dir():
            folder.mkdir(parents=True)
        part = root / key.part_path(fingerprint)
        part.write_bytes(b"x")
        manifest = Manifest(fingerprint, fingerprint, part.name, 1, 512, {"face_found": 512}, 1.0, details.to_json())
        (root / key.manifest_path).write_bytes(manifest.to_json())
        written += 1

    for unit in index_videos.plan_index_videos(videos):
        path = Path(unit.arguments)
        details = VideoDetails(path=str(path), frame_count=frames, file_state=file_state(path), width_px=640)
        for key in unit.written:
            write(key, unit.fingerprint, details)
    faces = crop_faces.plan_crop_faces(index_videos.indexed_videos(store), params=params)
    for unit in faces:
        segment = unit.arguments
        details = FacesDetails(
            first_frame=segment.first_frame, frame_count=segment.frame_count, crop_params=asdict(segment.params)
        )
        write(unit.key, unit.fingerprint, details)
    cropped = crop_faces.cropped_videos(store, faces)
    for unit in assign_subjects.plan_assign_subjects(cropped, source=source, subjects={}, params=TrackingParams()):
        write(unit.key, unit.fingerprint, SubjectsDetails(subjects=unit.arguments.subjects, segments=segments))
    backbone = BackboneChoice.find(DEFAULT_BACKBONE, None)
    subjects = embed_faces.subjects_of_source(store, source)
    for unit in embed_faces.plan_embed_faces(subjects, source=source, backbone=backbone):
        faces = FacesDetails.of(unit.arguments.faces[1])
        write(unit.key, unit.fingerprint, FeaturesDetails(**vars(faces), backbone_name=backbone.name))
    return written


def measure(arguments: Sequence[object]) -> tuple[float, float, float]:
    """Return seconds, processor seconds and peak memory in MB of one command."""
    started = time.perf_counter()
    with subprocess.Popen([PROGRAM, *map(str, arguments)], stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments[0]} ended with {process.returncode}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main(folder: Path, videos: int, segments: int) -> None:
    """Generate the store, unless it exists, and print what each command takes."""
    store = folder / "store"
    if not store.exists():
        began = time.perf_counter()
        count = fill_with_manifests(store, make_videos(folder / "videos", videos), segments=segments)
        print(f"{count:,} manifests of {videos:,} videos, generated in {time.perf_counter() - began:.0f} s", flush=True)
    for index in store.rglob(INDEX_NAME):
        index.unlink()
    status, extract = ["status", "--store", store], ["extract", folder / "videos", "--store", store]
    for what, command in (
        ("status without an index", status),
        ("extract, which writes the index", extract),
        ("status", status),
        ("extract", extract),
    ):
        seconds, cpu_seconds, peak_mb = measure(command)
        print(f"{what}: {seconds:.1f} s ({cpu_seconds:.1f} s CPU), at most {peak_mb:,.0f} MB", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", type=int)
    parser.add_argument("segments", type=int)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    if given.keep:
        main(given.keep, given.videos, given.segments)
    else:
        with tempfile.TemporaryDirectory(prefix="affwild2-bench-") as scratch:
            main(Path(scratch), given.videos, given.segments)
