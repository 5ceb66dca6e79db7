"""Stage ``crop_faces``: decode a segment, detect every face, and store box, landmarks, probability and crop."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from data_contracts.details.datasets import FacesDetails
from data_contracts.details.records import JsonObject
from data_contracts.files.inputs import check_unchanged
from data_contracts.files.locations import location
from data_contracts.schemas.faces import FACES
from data_contracts.store.fingerprint import fingerprint, variant_name
from data_contracts.store.manifest import Manifest, UnitKey
from data_contracts.store.store import Store
from data_contracts.video.frames import read_segment
from data_contracts.vocabulary import FACE_FOUND, NO_FACE, NOT_DECODED, SEGMENT_FRAMES
from models.faces.crops import crop_face, encode_jpeg, shrink_to
from models.faces.detection import Detections, DetectorParams, detector_weights_digest
from models.faces.following import first_of_group
from tasks.extract.index_videos import IndexedVideo, read_video_index
from tasks.read_ahead import read_ahead, uses_gpu
from tasks.units import Product, Unit
from tasks.worker_models import get_detector, get_follower

CODE_VERSION = 2
_CHUNK_FRAMES = 8
# 25 MB of RGB: four frames of 1080p, one of 4K. glibc requests memory for blocks above 32 MB from the system each time.
_CHUNK_PIXELS = 4 * 1920 * 1088
# Larger chunks on a GPU, so that it seldom waits for Python.
_CHUNK_FRAMES_GPU, _CHUNK_PIXELS_GPU = 64, 32 * 1920 * 1088


@dataclass(frozen=True)
class CropParams:
    """How faces are detected and cropped. Crops have no margin by default, as for the published features."""

    detector: DetectorParams = field(default_factory=DetectorParams)
    margin_fraction: float = 0.0
    max_side_px: int = 320
    jpeg_quality: int = 95


@dataclass(frozen=True)
class CropFacesArgs:
    """A segment of a video (``first_frame`` is 1-based) and how its faces are cropped."""

    video: IndexedVideo
    first_frame: int
    frame_count: int
    params: CropParams


@dataclass(frozen=True)
class CroppedVideo:
    """A video and all its segments, in order."""

    stem: str
    width_px: int
    segments: list[tuple[UnitKey, Manifest]]


def chunk_frames_of(width_px: int, height_px: int) -> int:
    """Return how many frames of this size are decoded at a time."""
    frames, pixels = (_CHUNK_FRAMES_GPU, _CHUNK_PIXELS_GPU) if uses_gpu() else (_CHUNK_FRAMES, _CHUNK_PIXELS)
    return max(1, min(frames, pixels // (width_px * height_px)))


def crop_params(*, min_face_px: int, exact: bool) -> CropParams:
    """Return the default parameters. ``exact``: search every frame, instead of following a single face."""
    every = 1 if exact else DetectorParams().search_every_frames
    return CropParams(DetectorParams(min_face_px=min_face_px, search_every_frames=every))


def crop_params_of(values: JsonObject | None) -> CropParams:
    """Return the parameters in a manifest; the defaults if it has none."""
    if values is None:
        return CropParams()
    # Earlier versions searched every frame.
    detector = DetectorParams(**({"search_every_frames": 1} | values["detector"]))
    return CropParams(**(values | {"detector": detector}))


def source_of(params: CropParams) -> str:
    """Return the name of the faces variant of these parameters and the detector's weights."""
    return variant_name("mtcnn", fingerprint(params=params, weights=detector_weights_digest(), version=CODE_VERSION))


def plan_crop_faces(
    videos: Mapping[str, IndexedVideo], *, params: CropParams, segment_frames: int = SEGMENT_FRAMES
) -> list[Unit[CropFacesArgs]]:
    """Plan one unit per segment of each indexed video. The first segment starts at frame 1."""
    source, weights = source_of(params), detector_weights_digest()
    units = []
    for stem, video in sorted(videos.items()):
        details = video.details
        frame_count = details.frame_count
        for number, first in enumerate(range(1, frame_count + 1, segment_frames)):
            count = min(segment_frames, frame_count - first + 1)
            unit_fingerprint = fingerprint(
                stage="crop_faces",
                version=CODE_VERSION,
                video=video.manifest.identity,
                first_frame=first,
                frame_count=count,
                params=params,
                weights=weights,
            )
            key = UnitKey("faces", (("source", source), ("video", stem)), f"{number:05d}")
            arguments = CropFacesArgs(video, first, count, params)
            units.append(Unit(key, unit_fingerprint, arguments, input_files=(details.path,)))
    return units


def compute(store: Store, unit: Unit[CropFacesArgs]) -> Product:
    """Crop the faces of one segment. Only a few frames are in memory at a time.

    Raises:
        InputError: the video is gone, has changed, or cannot be opened.
    """
    segment = unit.arguments
    product = Product(FACES, [])
    product.details = FacesDetails(
        first_frame=segment.first_frame, frame_count=segment.frame_count, crop_params=asdict(segment.params)
    )
    product.tables = _tables(store, segment, product)
    return product


def _tables(store: Store, segment: CropFacesArgs, product: Product) -> Iterator[pa.Table]:
    details = segment.video.details
    path = location(details.path)
    check_unchanged(path, details.file_state)
    yield from _decoded_tables(store, segment, product.counts)
    check_unchanged(path, details.file_state)
    lost = product.counts[NOT_DECODED]
    if lost:
        first = segment.first_frame
        last = first + segment.frame_count - 1
        product.problems.append(f"{path}: {lost} of the frames {first}..{last} cannot be decoded; replace the file")


def _decoded_tables(store: Store, segment: CropFacesArgs, counts: Counter[str]) -> Iterator[pa.Table]:
    first, count, params = segment.first_frame, segment.frame_count, segment.params
    index = read_video_index(store, segment.video)
    follower = get_follower(params.detector)
    start = first_of_group(first, params.detector.search_every_frames) if follower else first
    chunks = read_segment(
        location(segment.video.details.path),
        index,
        first_frame=start,
        frame_count=first + count - start,
        chunk_frames=chunk_frames_of(index.width_px, index.height_px),
    )
    detector = get_detector(params.detector)
    expected = first
    with read_ahead(_to_device(chunks, detector)) as decoded:
        for numbers, frames, device_frames in decoded:
            rows: list[dict[str, object]] = []
            if follower:
                detections = [follower.detect(*one) for one in zip(numbers.tolist(), frames, strict=True)]
            else:
                detections = detector.detect(device_frames)
            for number, frame, found in zip(numbers.tolist(), frames, detections, strict=True):
                # A follower starts at the first frame of a group, which may be before the segment.
                if number >= first:
                    rows += [_status_row(missing, NOT_DECODED) for missing in range(expected, number)]
                    rows += _face_rows(number, frame, found, params)
                    expected = number + 1
            counts.update(str(row["status"]) for row in rows)
            yield pa.Table.from_pylist(rows, schema=FACES.schema)
    undelivered = [_status_row(number, NOT_DECODED) for number in range(expected, first + count)]
    counts.update(str(row["status"]) for row in undelivered)
    yield pa.Table.from_pylist(undelivered, schema=FACES.schema)


def _to_device(
    chunks: Iterator[tuple[np.ndarray, np.ndarray]], detector: Any
) -> Iterator[tuple[np.ndarray, np.ndarray, Any]]:
    """Yield frame numbers, frames, and the same frames on the detector's device."""
    with contextlib.closing(chunks):  # type: ignore[type-var]
        for numbers, frames in chunks:
            yield numbers, frames, detector.to_device(frames)


def _face_rows(number: int, frame: np.ndarray, found: Detections, params: CropParams) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for box, landmarks, probability in zip(found.box_xyxy_px, found.landmarks_xy_px, found.probability, strict=True):
        crop = crop_face(frame, box, margin_fraction=params.margin_fraction)
        if crop is None:
            continue
        small = shrink_to(crop, max_side_px=params.max_side_px)
        rows.append(
            {
                **_status_row(number, FACE_FOUND),
                "face": len(rows),
                **dict(zip(("box_x1_px", "box_y1_px", "box_x2_px", "box_y2_px"), box.tolist(), strict=True)),
                "landmarks_xy_px": landmarks.reshape(-1).tolist(),
                "probability": float(probability),
                "crop_jpeg": encode_jpeg(small, quality=params.jpeg_quality),
            }
        )
    return rows or [_status_row(number, NO_FACE)]


def _status_row(number: int, status: str) -> dict[str, object]:
    return {"frame": number, "status": status}


def cropped_videos(store: Store, units: Sequence[Unit[CropFacesArgs]]) -> list[CroppedVideo]:
    """Return the videos whose segments all exist as planned."""
    if not units:
        return []
    known = store.manifests("faces", source=units[0].key.value("source"))
    by_video: dict[str, list[Unit[CropFacesArgs]]] = {}
    for unit in units:
        by_video.setdefault(unit.key.value("video"), []).append(unit)
    found = []
    for stem, segments in by_video.items():
        found_manifests = ((unit, known.get(unit.key)) for unit in segments)
        manifests = [(unit.key, m) for unit, m in found_manifests if m and m.fingerprint == unit.fingerprint]
        if len(manifests) == len(segments):
            found.append(CroppedVideo(stem, segments[0].arguments.video.details.width_px, manifests))
    return found
