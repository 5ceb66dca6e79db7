"""Stage ``index_videos``: every frame's number, time stamp and keyframe flag, from packets alone."""

import time
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from data_contracts.challenge.layout import is_utf8
from data_contracts.errors import InputError
from data_contracts.files.inputs import check_unchanged, file_state
from data_contracts.files.locations import Location, is_remote, location
from data_contracts.schemas import FRAMES, VIDEOS
from data_contracts.store.fingerprint import digest_of_file, fingerprint
from data_contracts.store.manifest import Manifest, UnitKey
from data_contracts.store.store import Store
from data_contracts.video.index import VideoIndex
from data_contracts.video.packets import index_video
from tasks.units import Product, Unit, write_product

CODE_VERSION = 2


def plan_index_videos(videos: Mapping[str, Location]) -> list[Unit]:
    """One unit per video file (stem -> path). A file that cannot be read becomes a unit that will fail."""
    return [_unit(stem, path) for stem, path in sorted(videos.items())]


def _unit(stem: str, path: Location) -> Unit:
    size, mtime_ns = file_state(path, as_listed=True)
    partitions = (("video", stem),)
    return Unit(
        UnitKey("videos", partitions),
        fingerprint(stage="index_videos", version=CODE_VERSION, path=ascii(str(path)), size=size, mtime_ns=mtime_ns),
        {"path": str(path)},
        companions=(UnitKey("frames", partitions),),
    )


def compute(store: Store, unit: Unit) -> Product:
    """Index one video, as far as it can be read.

    Later stages depend on the file's bytes, so a moved or touched file costs no recomputation. Of a file on S3 they
    depend on size and ETag, which change with the bytes: a digest would need them all once more.

    Raises:
        InputError: the file is not a readable video, or changes while it is read.
    """
    started, path = time.monotonic(), location(unit.arguments["path"])
    if not is_utf8(path.name):
        raise InputError(f"{path}: expected a file name in UTF-8, got other bytes; rename the file")
    before = file_state(path)
    index = index_video(path)
    sha256 = None if is_remote(path) else _digest(path)
    check_unchanged(path, before)
    identity = sha256 or fingerprint(size=before[0], etag=before[1])
    made_of = fingerprint(stage="index_videos", version=CODE_VERSION, video=identity)
    frames = Product(FRAMES, [frames_table(index)], identity=made_of)
    write_product(store, unit.companions[0], frames, fingerprint=unit.fingerprint, started=started)
    product = Product(VIDEOS, [_videos_table(path, before[0], sha256, index)], identity=identity)
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


def _digest(path: Location) -> str:
    try:
        return digest_of_file(path)
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, got {error.strerror}") from error


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


def _videos_table(path: Location, size_bytes: int, sha256: str | None, index: VideoIndex) -> pa.Table:
    row = {
        "path": str(path),
        "size_bytes": size_bytes,
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
    """Videos that are indexed: stem -> manifest (identity: of the file's bytes; details: path, frame_count)."""
    return {key.value("video"): manifest for key, manifest in store.manifests("videos").items()}
