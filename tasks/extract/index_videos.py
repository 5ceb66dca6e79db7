"""Stage ``index_videos``: find number, time stamp and keyframe flag of every frame.

Packets are read if they prove the frames; otherwise the video is decoded once (``data_contracts/video/packets.py``).
"""

import hashlib
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data_contracts.details.datasets import VideoDetails
from data_contracts.errors import InputError, RefusedFilesError, counted, printable
from data_contracts.files.inputs import check_unchanged, file_state
from data_contracts.files.locations import Location, is_remote, location
from data_contracts.schemas.faces import FRAMES, VIDEOS
from data_contracts.store.fingerprint import digest_of_file, fingerprint
from data_contracts.store.manifest import Manifest, UnitKey
from data_contracts.store.store import Store
from data_contracts.video.index import VideoIndex
from data_contracts.video.packets import index_video
from tasks.units import Product, Unit, write_product

CODE_VERSION = 3
# Part of the identities in existing stores, of videos whose index is still the same.
_IDENTITY_VERSION = 2
_SAME_NAMES_VERSION = 1


@dataclass(frozen=True)
class IndexedVideo:
    """A video that has been indexed, with the manifests of its units of ``videos`` and ``frames``."""

    stem: str
    manifest: Manifest
    frames: Manifest

    @property
    def details(self) -> VideoDetails:
        """Details in the manifest of ``videos``: path, frame count, ..."""
        return VideoDetails.of(self.manifest)


@dataclass(frozen=True)
class IndexVideoArgs:
    """Path or URL of a video, and whether to decode it regardless of its packets."""

    path: str
    must_decode: bool = False


def plan_index_videos(videos: Mapping[str, Location], *, must_decode: bool = False) -> list[Unit[IndexVideoArgs]]:
    """Plan one unit per video file (stem -> path).

    The unit of an unreadable file fails when it is computed. ``must_decode`` is not part of the fingerprint: the result
    replaces a wrong one.
    """
    units = []
    for stem, path in sorted(videos.items()):
        size, mtime_ns = file_state(path, as_listed=True)
        unit_fingerprint = fingerprint(
            stage="index_videos", version=CODE_VERSION, path=ascii(str(path)), size=size, mtime_ns=mtime_ns
        )
        companions = ((_key("frames", stem), unit_fingerprint),)
        arguments = IndexVideoArgs(str(path), must_decode)
        units.append(Unit(_key("videos", stem), unit_fingerprint, arguments, companions, input_files=(str(path),)))
    return units


def _key(dataset: str, stem: str) -> UnitKey:
    return UnitKey(dataset, (("video", stem),))


def compute(store: Store, unit: Unit[IndexVideoArgs]) -> Product:
    """Index one video, as far as it can be read.

    Later stages depend on the digest of the file's bytes, so a moved or touched file is not recomputed. On S3, they
    depend on size and ETag, because a digest would require another download. They depend on the index only if it
    does not have one frame per packet, as in earlier versions.

    Raises:
        InputError: the file is not a readable video, or changes while it is read.
    """
    started, path = time.monotonic(), location(unit.arguments.path)
    before = file_state(path)
    index = index_video(path, decode=unit.arguments.must_decode)
    sha256 = None if is_remote(path) else _digest(path)
    check_unchanged(path, before)
    identity = sha256 or fingerprint(size=before[0], etag=before[1])
    if index.display is not None:
        # Earlier versions did not mirror, crop or scale frames.
        identity = fingerprint(video=identity, display=index.display)
    if not index.equals_packets:
        identity = fingerprint(video=identity, index=_digest_of_index(index))
    frames_identity = fingerprint(stage="index_videos", version=_IDENTITY_VERSION, video=identity)
    frames = Product(FRAMES, [_frames_table(index)], identity=frames_identity)
    write_product(store, _key("frames", unit.key.value("video")), frames, fingerprint=unit.fingerprint, started=started)
    product = Product(VIDEOS, [_videos_table(path, before[0], sha256, index)], identity=identity)
    product.counts["frames"] = index.frame_count
    product.details = VideoDetails(
        path=str(path),
        frame_count=index.frame_count,
        file_state=before,
        width_px=index.width_px,
        display=index.display,
        index_method=index.method,
        average_fps=index.average_fps,
    )
    if index.problem:
        product.problems.append(
            f"{path}: {index.problem}; {counted(index.frame_count, 'frame')} used; replace the file"
        )
    return product


def _digest(path: Location) -> str:
    try:
        return digest_of_file(path)
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, got {error.strerror}") from error


def _digest_of_index(index: VideoIndex) -> str:
    arrays = (index.pts, index.pts_seconds, index.keyframe)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def _frames_table(index: VideoIndex) -> pa.Table:
    """Return the rows of ``frames`` for one video. Unknown time stamps are null, and their seconds are estimated."""
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
        "path": printable(str(path)),
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
        "index_method": index.method,
    }
    return pa.Table.from_pylist([row], schema=VIDEOS.schema)


def remove_indexes(store: Store, videos: Mapping[str, IndexedVideo]) -> None:
    """Remove wrong indexes, so that they are computed again."""
    for stem, video in videos.items():
        store.remove_unit(_key("videos", stem), video.manifest)
        store.remove_unit(_key("frames", stem), video.frames)


def indexed_videos(store: Store) -> dict[str, IndexedVideo]:
    """Return all indexed videos, by stem."""
    frames = {key.value("video"): manifest for key, manifest in store.manifests("frames").items()}
    videos = {key.value("video"): manifest for key, manifest in store.manifests("videos").items()}
    return {stem: IndexedVideo(stem, videos[stem], frames[stem]) for stem in videos if stem in frames}


def details_of_videos(store: Store) -> dict[str, VideoDetails]:
    """Return the details (path, frame count, ...) of all indexed videos, by stem."""
    return {key.value("video"): VideoDetails.of(manifest) for key, manifest in store.manifests("videos").items()}


@dataclass(frozen=True)
class OtherFiles:
    """Indexed files with the names of other videos (name -> file).

    Attributes:
        present: they still exist as they were indexed.
        gone: they do not.
    """

    present: dict[str, Location]
    gone: dict[str, Location]


def find_other_files(store: Store, videos: Mapping[str, Location]) -> OtherFiles:
    """Return the indexed files whose results these videos (name -> file) would replace.

    A file at the same place, and a copy of the same bytes at another place, replace nothing.
    """
    known, found = details_of_videos(store), OtherFiles({}, {})
    for name, file in videos.items():
        if (details := known.get(name)) and details.path != str(file):
            indexed = location(details.path)
            if file_state(indexed) == details.file_state:
                if not _has_equal_bytes(indexed, file):
                    found.present[name] = indexed
            elif file_state(file).size_bytes != details.file_state.size_bytes:
                found.gone[name] = indexed
    return found


def _has_equal_bytes(one: Location, other: Location) -> bool:
    """Return whether two files have the same bytes. A file that cannot be read counts as equal; indexing reports it."""
    if is_remote(one) or is_remote(other):
        return file_state(one) == file_state(other)
    if file_state(one).size_bytes != file_state(other).size_bytes:
        return False
    try:
        return _digest(one) == _digest(other)
    except InputError:
        return True


def read_video_index(store: Store, video: IndexedVideo) -> VideoIndex:
    """Read the stored index of a video.

    Raises:
        InputError: the data are damaged or gone.
    """
    row = store.read_unit(_key("videos", video.stem), video.manifest).to_pylist()[0]
    return VideoIndex.from_rows(row, store.read_unit(_key("frames", video.stem), video.frames))


def plan_refuse_same_names(files_of: Mapping[str, Sequence[Location]]) -> list[Unit[tuple[str, ...]]]:
    """Plan one unit per name of several files (stem -> files). It fails until only one of the files is left."""
    units = []
    for stem, files in sorted(files_of.items()):
        names = tuple(str(path) for path in files)
        states = [(ascii(name), *file_state(path)) for name, path in zip(names, files, strict=True)]
        # The name of the stage is part of fingerprints in existing stores.
        unit_fingerprint = fingerprint(stage="refuse_twins", version=_SAME_NAMES_VERSION, files=states)
        units.append(Unit(_key("videos", stem), unit_fingerprint, names, input_files=names))
    return units


def refuse_same_names(store: Store, unit: Unit[tuple[str, ...]]) -> Product:
    """Refuse files that share a name, because results are stored by name.

    Raises:
        InputError: always.
    """
    first, *others = unit.arguments
    others_named = ", ".join(others[:3])
    raise RefusedFilesError(f"{first}: expected one video per name, got also {others_named}; rename all but one")


def refuse_other_file(store: Store, unit: Unit[tuple[str, ...]]) -> Product:
    """Refuse a file whose name the store knows for another one, because it would replace the results of that one.

    Raises:
        InputError: always.
    """
    file, indexed = unit.arguments
    raise RefusedFilesError(
        f"{file}: expected one video per name, got also {indexed}, whose results the store has; rename one of them, or "
        f"remove these results first: affwild2 forget {shlex.quote(unit.key.value('video'))} --store {store.url}"
    )
