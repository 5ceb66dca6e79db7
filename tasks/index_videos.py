"""Stage ``index_videos``: every frame's number, time stamp and keyframe flag, from packets alone."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_contracts.errors import InputError
from data_contracts.fingerprint import digest_of_file, fingerprint
from data_contracts.layout import check_unchanged, file_state, is_utf8
from data_contracts.manifest import Manifest, UnitKey
from data_contracts.schemas import FRAMES, VIDEOS
from data_contracts.store import Store
from data_contracts.video import VideoIndex, index_video
from tasks.units import Product, Unit, write_product

CODE_VERSION = 2


def plan_index_videos(videos: Mapping[str, Path]) -> list[Unit]:
    """One unit per video file (stem -> path). A file that cannot be read becomes a unit that will fail."""
    return [_unit(stem, path) for stem, path in sorted(videos.items())]


def _unit(stem: str, path: Path) -> Unit:
    size, mtime_ns = file_state(path)
    partitions = (("video", stem),)
    return Unit(
        UnitKey("videos", partitions),
        fingerprint(stage="index_videos", version=CODE_VERSION, path=ascii(str(path)), size=size, mtime_ns=mtime_ns),
        {"path": str(path)},
        companions=(UnitKey("frames", partitions),),
    )


def compute(store: Store, unit: Unit) -> Product:
    """Index one video, as far as it can be read.

    Later stages depend on the file's bytes, so a moved or touched file costs no recomputation.

    Raises:
        InputError: the file is not a readable video, or changes while it is read.
    """
    started, path = time.monotonic(), Path(unit.arguments["path"])
    if not is_utf8(path.name):
        raise InputError(f"{path}: expected a file name in UTF-8, got other bytes; rename the file")
    before = file_state(path)
    index = index_video(path)
    try:
        sha256 = digest_of_file(path)
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, got {error.strerror}") from error
    check_unchanged(path, before)
    made_of = fingerprint(stage="index_videos", version=CODE_VERSION, video=sha256)
    frames = Product(FRAMES, [frames_table(index)], identity=made_of)
    write_product(store, unit.companions[0], frames, fingerprint=unit.fingerprint, started=started)
    product = Product(VIDEOS, [_videos_table(path, sha256, index)], identity=sha256)
    product.counts["frames"] = index.frame_count
    product.details = {
        "path": str(path),
        "frame_count": index.frame_count,
        "file_state": before,
        "width_px": index.width_px,
    }
    if index.problem:
        product.problems.append(f"{path}: {index.problem}; its {index.frame_count} frames are used, replace the file")
    return product


def frames_table(index: VideoIndex) -> pa.Table:
    """Rows of ``frames`` for one video; unknown time stamps are null, their seconds estimated."""
    unknown = None if index.has_pts else np.ones(index.frame_count, dtype=bool)
    columns = {
        "frame": pa.array(np.arange(1, index.frame_count + 1, dtype=np.int32)),
        "pts": pa.array(index.pts, pa.int64(), mask=unknown),
        "pts_seconds": pa.array(index.pts_seconds, pa.float64()),
        "keyframe": pa.array(index.keyframe),
    }
    return pa.table(columns)


def _videos_table(path: Path, sha256: str, index: VideoIndex) -> pa.Table:
    row = {
        "path": str(path),
        "size_bytes": path.stat().st_size,
        "sha256": sha256,
        "width_px": index.width_px,
        "height_px": index.height_px,
        "rotation_degrees": index.rotation_degrees,
        "codec": index.codec,
        "frame_count": index.frame_count,
        "claimed_frame_count": index.claimed_frame_count,
        "average_fps": index.average_fps,
        "duration_seconds": index.duration_seconds,
        "problem": index.problem,
    }
    return pa.Table.from_pylist([row], schema=VIDEOS.schema)


def ready_videos(store: Store) -> dict[str, Manifest]:
    """Videos that are indexed: stem -> manifest (identity: sha256; details: path, frame_count)."""
    return {key.value("video"): manifest for key, manifest in store.manifests("videos").items()}
