"""What a run with nothing to do, and ``status``, cost in a store of very many units: seconds and peak memory.

``python tests/benchmarks/many_manifests.py 600 500`` makes a store of 600 videos of 500 segments each: about 600,000
manifests, planned by the stages themselves. Parts are of one byte: nothing reads them. Files are not flushed to the
disk, so that it takes minutes.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from generated_store import make_videos

from data_contracts.store.manifest import Manifest, UnitKey
from data_contracts.store.store import Store
from flows.extract import DEFAULT_BACKBONE
from models.faces.tracking import TrackingParams
from tasks.extract import assign_subjects, crop_faces, embed_faces, index_videos
from tasks.extract.embed_faces import BackboneChoice
from tasks.units import Unit

PROGRAM = str(Path(sys.executable).with_name("affwild2"))


def fill_with_manifests(root: Path, videos: Mapping[str, Path], *, segments: int) -> int:
    """Write manifests of all that ``extract`` makes of the videos; how many they are."""
    store, params, written = Store(str(root)), crop_faces.CropParams(), 0
    source = crop_faces.source_of(params)
    frames = segments * crop_faces.SEGMENT_FRAMES

    def write(key: UnitKey, fingerprint: str, details: dict[str, Any]) -> None:
        nonlocal written
        folder = root / key.folder
        if not folder.is_dir():
            folder.mkdir(parents=True)
        part = root / key.part_path(fingerprint)
        part.write_bytes(b"x")
        manifest = Manifest(fingerprint, fingerprint, part.name, 1, 512, {"face_found": 512}, 1.0, details)
        (root / key.manifest_path).write_bytes(manifest.to_json())
        written += 1

    for unit in index_videos.plan_index_videos(videos):
        path = Path(unit.arguments["path"])
        stat = path.stat()
        state = [stat.st_size, stat.st_mtime_ns]
        details = {"path": str(path), "frame_count": frames, "file_state": state, "width_px": 640}
        for key in (unit.key, *unit.companions):
            write(key, unit.fingerprint, details)
    faces = crop_faces.plan_crop_faces(index_videos.ready_videos(store), params=params)
    for unit in faces:
        write(unit.key, unit.fingerprint, _details_of(unit))
    cropped = crop_faces.cropped_videos(store, faces)
    for unit in assign_subjects.plan_assign_subjects(cropped, source=source, subjects={}, params=TrackingParams()):
        write(unit.key, unit.fingerprint, {"subjects": unit.arguments["subjects"], "segments": segments})
    backbone = BackboneChoice.find(DEFAULT_BACKBONE, None)
    subjects = embed_faces.subjects_of_source(store, source)
    for unit in embed_faces.plan_embed_faces(subjects, source=source, backbone=backbone):
        write(unit.key, unit.fingerprint, unit.arguments["faces"][1].details)
    return written


def _details_of(unit: Unit) -> dict[str, Any]:
    return {"first_frame": unit.arguments["first"], "frame_count": unit.arguments["count"], "crop_params": None}


def measure(arguments: Sequence[object]) -> tuple[float, float]:
    """Seconds of a command, and the peak of its processes' memory in MB, of the largest one so far."""
    started = time.perf_counter()
    subprocess.run([PROGRAM, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


if __name__ == "__main__":
    video_count, segment_count = map(int, sys.argv[1:3])
    with tempfile.TemporaryDirectory(prefix="affwild2-bench-", dir=os.environ.get("TMPDIR")) as scratch:
        began = time.perf_counter()
        place = Path(scratch)
        files = make_videos(place / "videos", video_count)
        count = fill_with_manifests(place / "store", files, segments=segment_count)
        print(f"{count:,} manifests of {video_count:,} videos, made in {time.perf_counter() - began:.0f} s", flush=True)
        for command in ("status", "extract"):
            where = ["--store", place / "store"]
            seconds, peak = measure([command, *([place / "videos"] if command == "extract" else []), *where])
            print(f"{command}: {seconds:.1f} s, at most {peak:,.0f} MB", flush=True)
