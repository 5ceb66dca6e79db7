"""Flow ``extract``: videos or official crops to features, stages 1 to 5."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from prefect import flow
from pydantic import Field

from data_contracts.errors import InputError
from data_contracts.layout import DataLayout, find_data, list_crops, subjects_of_videos
from data_contracts.manifest import Manifest
from flows.run import Run
from models.mtcnn import DetectorParams
from models.tracking import TrackingParams
from tasks import assign_subjects, crop_faces, embed_faces, import_crops, index_videos

Source = Literal["mtcnn", "cropped", "cropped_aligned"]
DEFAULT_BACKBONE = "efficientnet_lite0"
T = TypeVar("T")


@dataclass(frozen=True)
class ExtractRequest:
    """What to extract, and how.

    Attributes:
        data: folder in the organisers' layout, or a folder of videos.
        source: where face crops come from; None takes ``mtcnn`` if there are videos, else the crops that are there.
        backbone: name in the registry.
        weights: a safetensors file instead of the bundled weights.
        min_face_px: smallest face that the detector looks for.
        segment_frames: frames per unit of work.
        limit: take only that many videos or subjects.
    """

    data: Path
    source: Source | None = None
    backbone: str = DEFAULT_BACKBONE
    weights: str | None = None
    min_face_px: int = 40
    segment_frames: int = crop_faces.SEGMENT_FRAMES
    limit: int | None = None


@dataclass(frozen=True)
class Extracted:
    """Names of the variants that an extraction filled."""

    backbone: str
    source: str
    videos: tuple[str, ...]


def extract_features(run: Run, request: ExtractRequest) -> Extracted:
    """Make features of everything in a folder exist.

    Raises:
        InputError: the folder holds nothing of the kind that is asked for.
    """
    layout = find_data(request.data)
    source = request.source or _default_source(layout)
    videos = _limited(layout.videos, request.limit if source == "mtcnn" else None)
    if source == "mtcnn" and not videos:
        raise InputError(f"{request.data}: expected video files for --source mtcnn, found none")
    index_units = index_videos.plan_index_videos(videos)
    run.stage("index_videos", index_units, index_videos.compute)
    indexed = {s: m for s, m in index_videos.ready_videos(run.store).items() if s in videos}
    variant = (
        _detect_faces(run, request, layout, indexed)
        if source == "mtcnn"
        else _import_crops(run, request, layout, source, {s: m.details["frame_count"] for s, m in indexed.items()})
    )
    backbone = embed_faces.BackboneChoice(request.backbone, request.weights)
    subjects = [f for f in embed_faces.subjects_of_source(run.store, variant) if _wanted(f, set(videos), source)]
    units = embed_faces.plan_embed_faces(subjects, source=variant, backbone=backbone)
    run.stage("embed_faces", units, embed_faces.compute)
    return Extracted(backbone.variant, variant, tuple(videos))


def _default_source(layout: DataLayout) -> Source:
    if layout.videos:
        return "mtcnn"
    return "cropped" if "cropped" in layout.crops else "cropped_aligned"


def _wanted(faces: embed_faces.SubjectFaces, videos: set[str], source: str) -> bool:
    return source != "mtcnn" or faces.segments[0][0].value("video") in videos


def _detect_faces(run: Run, request: ExtractRequest, layout: DataLayout, indexed: Mapping[str, Manifest]) -> str:
    params = crop_faces.CropParams(DetectorParams(min_face_px=request.min_face_px))
    units = crop_faces.plan_crop_faces(indexed, params=params, segment_frames=request.segment_frames)
    run.stage("crop_faces", units, crop_faces.compute)
    source = crop_faces.source_of(params)
    tracking = assign_subjects.plan_assign_subjects(
        crop_faces.cropped_videos(run.store, units),
        source=source,
        subjects=subjects_of_videos(layout),
        params=TrackingParams(),
    )
    run.stage("assign_subjects", tracking, assign_subjects.compute)
    return source


def _import_crops(
    run: Run, request: ExtractRequest, layout: DataLayout, source: Source, frame_counts: Mapping[str, int]
) -> str:
    if source not in layout.crops:
        there = ", ".join(layout.crops) or "none"
        raise InputError(f"{request.data}: expected crops of source {source}, found {there}")
    crops = _limited(list_crops(layout.crops[source]).subjects, request.limit)
    units = import_crops.plan_import_crops(crops, name=source, frame_counts=frame_counts)
    run.stage("import_crops", units, import_crops.compute)
    return import_crops.source_of(source)


def _limited(items: Mapping[str, T], limit: int | None) -> dict[str, T]:
    return dict(sorted(items.items())[:limit])


@flow(name="extract", flow_run_name="extract {data}")
def extract(
    data: Annotated[Path, Field(description="folder in the organisers' layout, or a folder of videos")],
    store: Annotated[str, Field(description="where results go: a path, file:// or s3:// URL")],
    source: Source | None = None,
    backbone: str = DEFAULT_BACKBONE,
    weights: str | None = None,
    min_face_px: Annotated[int, Field(ge=20, description="smallest face looked for, in pixels")] = 40,
    segment_frames: Annotated[int, Field(ge=1, description="frames per unit of work")] = crop_faces.SEGMENT_FRAMES,
    limit: Annotated[int | None, Field(ge=1, description="take only so many videos or subjects")] = None,
    dask_address: Annotated[str | None, Field(description="address of a Dask scheduler; none: a local one")] = None,
    workers: Annotated[int | None, Field(ge=1, description="local worker processes; none: one per core")] = None,
) -> Extracted:
    """From face videos (or the organisers' crops) to features, resumable at every unit."""
    request = ExtractRequest(data, source, backbone, weights, min_face_px, segment_frames, limit)
    with Run(store, dask_address=dask_address, workers=workers) as run:
        extracted = extract_features(run, request)
        run.print_summary()
        run.raise_for_failures()
    return extracted
