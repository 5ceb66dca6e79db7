"""Stage ``crop_faces``: decode a segment, detect every face, and store box, landmarks, probability and crop.

``embed_segments`` uses the same faces without storing the crops.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.details.datasets import FacesDetails
from data_contracts.details.records import JsonObject
from data_contracts.errors import InputError
from data_contracts.files.inputs import check_unchanged
from data_contracts.files.locations import Location, location
from data_contracts.schemas.faces import BOX_NAMES, FACES
from data_contracts.store.fingerprint import fingerprint, variant_name
from data_contracts.store.manifest import Manifest, StoredUnit, UnitKey
from data_contracts.store.store import Store
from data_contracts.video.frames import read_segment
from data_contracts.vocabulary import FACE_FOUND, NO_FACE, NOT_DECODED, SEGMENT_FRAMES
from models.faces.crops import crop_face, decode_jpeg, encode_jpeg, shrink_to
from models.faces.detection import Detections, DetectorParams, detector_weights_digest
from models.faces.following import first_of_group
from tasks.extract.index_videos import IndexedVideo, read_video_index
from tasks.read_ahead import read_ahead, uses_gpu
from tasks.units import Product, Unit, complete_videos
from tasks.worker_models import get_detector, get_follower

CODE_VERSION = 2
_CHUNK_FRAMES = 8
# 25 MB of RGB: four frames of 1080p, one of 4K. glibc requests memory for blocks above 32 MB from the system each time.
_CHUNK_PIXELS = 4 * 1920 * 1088
# Larger chunks on a GPU, so that it seldom waits for Python.
_CHUNK_FRAMES_GPU, _CHUNK_PIXELS_GPU = 64, 32 * 1920 * 1088


@dataclass(frozen=True)
class CropParams:
    """How faces are detected and cropped. Crops have no margin by default, as for the published features.

    ``keep_crops``: store the crops, and compute features from the stored JPEG files; else no face image is stored.
    """

    detector: DetectorParams = field(default_factory=DetectorParams)
    margin_fraction: float = 0.0
    max_side_px: int = 320
    jpeg_quality: int = 95
    keep_crops: bool = True

    def fingerprint_fields(self) -> JsonObject:
        """Return the fields for fingerprints. Earlier versions kept all crops."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if name != "keep_crops" or not value}

    def to_json(self) -> JsonObject:
        """Return the values for a manifest, which ``crop_params_of`` reads."""
        return self.fingerprint_fields() | {"detector": asdict(self.detector)}


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
    segments: list[StoredUnit]


def chunk_frames_of(width_px: int, height_px: int) -> int:
    """Return how many frames of this size are decoded at a time."""
    frames, pixels = (_CHUNK_FRAMES_GPU, _CHUNK_PIXELS_GPU) if uses_gpu() else (_CHUNK_FRAMES, _CHUNK_PIXELS)
    return max(1, min(frames, pixels // (width_px * height_px)))


def crop_params(*, min_face_px: int, exact: bool, keep_crops: bool = True) -> CropParams:
    """Return the default parameters. ``exact``: search every frame, instead of following a single face."""
    every = 1 if exact else DetectorParams().search_every_frames
    return CropParams(DetectorParams(min_face_px=min_face_px, search_every_frames=every), keep_crops=keep_crops)


def crop_params_of(values: JsonObject | None) -> CropParams:
    """Return the parameters in a manifest; the defaults if it has none."""
    if values is None:
        return CropParams()
    # Earlier versions searched every frame.
    detector = DetectorParams(**({"search_every_frames": 1} | values["detector"]))
    return CropParams(**(values | {"detector": detector}))


def source_of(params: CropParams) -> str:
    """Return the name of the faces variant of these parameters and the detector's weights."""
    name = "mtcnn" if params.keep_crops else "mtcnn_no_crops"
    return variant_name(name, fingerprint(params=params, weights=detector_weights_digest(), version=CODE_VERSION))


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
    product = Product(FACES, [], details=details_of(segment))
    product.tables = _tables(store, segment, product)
    return product


def details_of(segment: CropFacesArgs) -> FacesDetails:
    """Return the details for the manifest of a segment's faces."""
    return FacesDetails(
        first_frame=segment.first_frame, frame_count=segment.frame_count, crop_params=segment.params.to_json()
    )


def _tables(store: Store, segment: CropFacesArgs, product: Product) -> Iterator[pa.Table]:
    for found in find_faces(store, segment, product):
        yield with_crops(found.table, found.crops, segment.params)


@dataclass(frozen=True)
class FoundFaces:
    """Rows of ``faces`` for consecutive frames, without crops; and the crop of each row with a face, in order.

    Crops are RGB uint8 [h, w, 3].
    """

    table: pa.Table
    crops: list[np.ndarray]


def with_crops(faces: pa.Table, crops: Sequence[np.ndarray], params: CropParams) -> pa.Table:
    """Return rows of faces with the JPEG files of their crops: RGB uint8 [h, w, 3], one of each row with a face."""
    encoded = (encode_jpeg(crop, quality=params.jpeg_quality) for crop in crops)
    column = [next(encoded) if status == FACE_FOUND else None for status in faces["status"].to_pylist()]
    place = faces.schema.get_field_index("crop_jpeg")
    field = faces.schema.field(place)
    return faces.set_column(place, field, pa.array(column, field.type))


def find_faces(store: Store, segment: CropFacesArgs, product: Product) -> Iterator[FoundFaces]:
    """Decode a segment and detect its faces, a few frames at a time.

    Crops are views of the frames, RGB uint8 [h, w, 3], or smaller copies of them. The product receives the counts of
    rows per status, and a line about frames that cannot be decoded.

    Raises:
        InputError: the video is gone, has changed, or cannot be opened.
    """
    with _unchanged_video(segment.video):
        for found in _find_faces(store, segment):
            product.counts.update(found.table["status"].to_pylist())
            yield found
    note_lost_frames(segment, product)


def note_lost_frames(segment: CropFacesArgs, product: Product) -> None:
    """Add a line to the problems of a product that has counted frames that cannot be decoded."""
    if lost := product.counts[NOT_DECODED]:
        path, first, last = (
            segment.video.details.path,
            segment.first_frame,
            segment.first_frame + segment.frame_count - 1,
        )
        product.problems.append(f"{path}: {lost} of the frames {first}..{last} cannot be decoded; replace the file")


@contextlib.contextmanager
def _unchanged_video(video: IndexedVideo) -> Iterator[Location]:
    """Check that a video is the indexed one, before and after it is decoded."""
    details = video.details
    path = location(details.path)
    check_unchanged(path, details.file_state)
    yield path
    check_unchanged(path, details.file_state)


def _decode(store: Store, video: IndexedVideo, *, first: int, last: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield chunks of frame numbers and frames."""
    index = read_video_index(store, video)
    chunk_frames = chunk_frames_of(index.width_px, index.height_px)
    path, count = location(video.details.path), last - first + 1
    return read_segment(path, index, first_frame=first, frame_count=count, chunk_frames=chunk_frames)


def _find_faces(store: Store, segment: CropFacesArgs) -> Iterator[FoundFaces]:
    first, count, params = segment.first_frame, segment.frame_count, segment.params
    follower = get_follower(params.detector)
    start = first_of_group(first, params.detector.search_every_frames) if follower else first
    chunks = _decode(store, segment.video, first=start, last=first + count - 1)
    detector = get_detector(params.detector)
    expected = first
    with read_ahead(_to_device(chunks, detector)) as decoded:
        for numbers, frames, device_frames in decoded:
            rows, crops = list[JsonObject](), list[np.ndarray]()
            if follower:
                detections = [follower.detect(*one) for one in zip(numbers.tolist(), frames, strict=True)]
            else:
                detections = detector.detect(device_frames)
            for number, frame, found in zip(numbers.tolist(), frames, detections, strict=True):
                # A follower starts at the first frame of a group, which may be before the segment.
                if number >= first:
                    rows += [_status_row(missing, NOT_DECODED) for missing in range(expected, number)]
                    of_frame = _rows_of_frame(number, frame, found, params)
                    rows += of_frame[0]
                    crops += of_frame[1]
                    expected = number + 1
            yield _to_found(rows, crops)
    yield _to_found([_status_row(number, NOT_DECODED) for number in range(expected, first + count)], [])


def _to_found(rows: list[JsonObject], crops: list[np.ndarray]) -> FoundFaces:
    return FoundFaces(pa.Table.from_pylist(rows, schema=FACES.schema), crops)


def _to_device(
    chunks: Iterator[tuple[np.ndarray, np.ndarray]], detector: Any
) -> Iterator[tuple[np.ndarray, np.ndarray, Any]]:
    """Yield frame numbers, frames, and the same frames on the detector's device."""
    with contextlib.closing(chunks):  # type: ignore[type-var]
        for numbers, frames in chunks:
            yield numbers, frames, detector.to_device(frames)


def _rows_of_frame(
    number: int, frame: np.ndarray, found: Detections, params: CropParams
) -> tuple[list[JsonObject], list[np.ndarray]]:
    """Return the rows and the crops of a frame."""
    rows, crops = list[JsonObject](), list[np.ndarray]()
    for box, landmarks, probability in zip(found.box_xyxy_px, found.landmarks_xy_px, found.probability, strict=True):
        crop = cut_face(frame, box, params)
        if crop is not None:
            rows.append(_status_row(number, FACE_FOUND) | {"face": len(crops)} | face_row(box, landmarks, probability))
            crops.append(crop)
    return rows or [_status_row(number, NO_FACE)], crops


def face_row(box_xyxy_px: np.ndarray, landmarks_xy_px: np.ndarray, probability: float) -> JsonObject:
    """Return the columns of a detected face: its box, landmarks and probability."""
    return {
        **dict(zip(BOX_NAMES, box_xyxy_px.tolist(), strict=True)),
        "landmarks_xy_px": landmarks_xy_px.reshape(-1).tolist(),
        "probability": float(probability),
    }


def cut_face(frame: np.ndarray, box_xyxy_px: np.ndarray, params: CropParams) -> np.ndarray | None:
    """Return the crop of a face, RGB uint8 [h, w, 3], as it enters a backbone or a JPEG file.

    None if the box lies outside the frame.
    """
    crop = crop_face(frame, box_xyxy_px, margin_fraction=params.margin_fraction)
    return None if crop is None else shrink_to(crop, max_side_px=params.max_side_px)


def _status_row(number: int, status: str) -> JsonObject:
    return {"frame": number, "status": status}


def cut_stored_faces(
    store: Store,
    faces: StoredUnit,
    video: IndexedVideo,
    *,
    wanted: Collection[tuple[int, int]] | None = None,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Decode a video again, and yield (frame, rank in the frame, crop) of faces of a unit that stores no crops.

    The crops are those that were cut when the faces were detected. ``wanted``: (frame, rank); None: all.

    Raises:
        InputError: the video is gone, has changed, or cannot be decoded as before.
    """
    params = crop_params_of(FacesDetails.of(faces.manifest).crop_params)
    boxes: dict[int, list[tuple[int, np.ndarray]]] = {}
    for batch in store.iter_unit(*faces, columns=["frame", "face", "status", *BOX_NAMES]):
        table = pa.Table.from_batches([batch]).filter(pc.equal(batch["status"], FACE_FOUND))
        box_xyxy_px = np.stack([table[name].to_numpy() for name in BOX_NAMES], axis=1)
        for frame, rank, box in zip(table["frame"].to_pylist(), table["face"].to_pylist(), box_xyxy_px, strict=True):
            if wanted is None or (frame, rank) in wanted:
                boxes.setdefault(frame, []).append((rank, box))
    if not boxes:
        return
    with (
        _unchanged_video(video) as path,
        read_ahead(_decode(store, video, first=min(boxes), last=max(boxes))) as chunks,
    ):
        for numbers, frames in chunks:
            for number, frame in zip(numbers.tolist(), frames, strict=True):
                for rank, box in boxes.pop(number, ()):
                    crop = cut_face(frame, box, params)
                    assert crop is not None, "the box was inside the same frame before"
                    yield number, rank, crop
        if boxes:
            raise InputError(f"{path}: expected the frames that showed faces before, got no frame {min(boxes)}")


def read_faces(
    store: Store, faces: StoredUnit, video: IndexedVideo | None, *, wanted: Collection[tuple[int, int]]
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (frame, rank in the frame, crop) of the wanted faces of a unit, in order.

    Without stored crops, they are cut out of the video again. Stored crops that cannot be read are left out.

    Raises:
        InputError: as ``cut_stored_faces``.
    """
    details = FacesDetails.of(faces.manifest)
    frames = range(details.first_frame, details.first_frame + details.frame_count)
    wanted = {one for one in wanted if one[0] in frames}
    if not wanted:
        return
    if not has_crops(faces.manifest):
        if video is None:
            raise InputError(f"{faces.key}: expected its video in the store, whose crops are not stored; extract again")
        yield from cut_stored_faces(store, faces, video, wanted=wanted)
        return
    for batch in store.iter_unit(*faces, columns=["frame", "face", "crop_jpeg"]):
        keys = zip(batch.column("frame").to_pylist(), batch.column("face").to_pylist(), strict=True)
        for row, (frame, rank) in enumerate(keys):
            if (frame, rank) in wanted:
                with contextlib.suppress(ValueError, TypeError):
                    yield frame, rank, decode_jpeg(batch.column("crop_jpeg")[row].as_py())


def has_crops(faces: Manifest) -> bool:
    """Return whether a unit of ``faces`` stores the crops."""
    return crop_params_of(FacesDetails.of(faces).crop_params).keep_crops


def cropped_videos(store: Store, units: Sequence[Unit[CropFacesArgs]]) -> list[CroppedVideo]:
    """Return the videos whose segments all exist as planned."""
    widths_px = {unit.key.value("video"): unit.arguments.video.details.width_px for unit in units}
    complete = complete_videos(store, units)
    return [CroppedVideo(stem, widths_px[stem], segments) for stem, segments in complete.items()]
