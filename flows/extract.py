"""Flow ``extract``: videos or official crops to features, stages 1 to 5."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from data_contracts.challenge.crops import list_crops, source_of_crop_folder
from data_contracts.challenge.layout import DataLayout, find_data, subjects_of_videos
from data_contracts.challenge.other_files import ARCHIVES
from data_contracts.challenge.videos import VideoListing
from data_contracts.errors import InputError, counted
from data_contracts.files.inputs import list_folders, reading_inputs
from data_contracts.files.locations import Location, location
from data_contracts.store.manifest import StoredUnit, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import Precision
from flows.engine.console import print_line
from flows.engine.run import Run
from flows.engine.stage_summary import StageSummary
from flows.options import takes
from flows.parameters import ExtractParameters, Source, scheduler_of
from models.faces.tracking import TrackingParams
from tasks.backbones import BackboneChoice
from tasks.extract import (
    assign_subjects,
    crop_faces,
    embed_faces,
    embed_other_faces,
    embed_segments,
    identify_persons,
    import_crops,
    index_videos,
    select_features,
)
from tasks.extract.deleted_videos import remove_notes_of_deleted
from tasks.extract.index_videos import IndexedVideo
from tasks.units import Unit, complete_videos

T = TypeVar("T")
_BEYOND_LIMIT = "inputs beyond --limit"


@dataclass(frozen=True)
class Extracted:
    """Names of the variants of an extraction.

    Attributes:
        complete: subjects with all their features.
        videos_of_subjects: subject -> its video.
        vectors: video -> units of ``face_features`` of all its segments; None if the crops are stored.
    """

    backbone: str
    source: str
    videos: tuple[str, ...]
    complete: frozenset[str] = frozenset()
    videos_of_subjects: Mapping[str, str] = field(default_factory=dict)
    vectors: Mapping[str, Sequence[StoredUnit]] | None = None


def find_backbone(request: ExtractParameters) -> BackboneChoice:
    """Return the backbone of a request, and open its weights before a video is decoded.

    Raises:
        InputError: the backbone is unknown, or its weights are not installed, damaged, or those of another network.
    """
    precision: Precision = "float32" if request.exact else "bfloat16"
    store = Store(request.store)
    backbone = BackboneChoice.find(request.backbone, request.weights, precision, store=store)
    backbone.check(store)
    return backbone


def extract_features(run: Run, request: ExtractParameters, backbone: BackboneChoice) -> Extracted:
    """Extract features from everything in a folder.

    Raises:
        InputError: the folder contains no input of the requested source.
    """
    layout = find_data(request.data)
    source = request.source or _default_source(layout)
    listing = layout.video_listing
    videos = _limited(listing.videos, request.limit if source == "mtcnn" else None)
    for name in listing.videos.keys() - videos.keys():
        listing.account.drop(listing.videos[name], _BEYOND_LIMIT)
    report_videos(run, listing)
    if source == "mtcnn":
        return _detect_faces(run, request, layout, videos, backbone)
    _check_crop_options(request, source)
    return _import_crops(run, request, layout, source, backbone)


def _detect_faces(
    run: Run,
    request: ExtractParameters,
    layout: DataLayout,
    videos: Mapping[str, Location],
    backbone: BackboneChoice,
) -> Extracted:
    if layout.crops:
        folders = ", ".join(str(folder) for found in layout.crops.values() for folder in found)
        print_line(f"note: faces are detected in the videos; the crops in {folders} are not used (see --source)")
    if not (videos or layout.video_listing.same_names):
        raise InputError(f"{request.data}: expected video files for --source mtcnn, found none")
    subjects = subjects_of_videos(layout)
    extracted = extract_videos(
        run,
        index(run, _without_names_of_subjects(run, videos, subjects)),
        params=crop_faces.crop_params(min_face_px=request.min_face_px, exact=request.exact, keep_crops=request.crops),
        backbone=backbone,
        subjects=subjects,
        segment_frames=request.segment_frames,
    )
    if request.people == "all":
        extract_everyone(run, extracted, backbone)
    run.count_inputs(videos, noun="video", verb="extracted", videos=extracted.videos_of_subjects)
    return extracted


def _check_crop_options(request: ExtractParameters, source: Source) -> None:
    """Refuse options that need videos for a source of official crops."""
    if request.people == "all":
        raise InputError(
            f"--people all: the crops of source {source} show only subjects; leave out the option, or detect faces in "
            "the videos with --source mtcnn"
        )
    if not request.crops:
        raise InputError(
            f"--no-crops: source {source} consists of crops; leave out the option, or detect faces in the videos with "
            "--source mtcnn"
        )


def _without_names_of_subjects(
    run: Run, videos: Mapping[str, Location], subjects: Mapping[str, Sequence[str]]
) -> dict[str, Location]:
    """Refuse videos that are named like a subject of another video; return the others."""
    pairs = [(name, video) for video, names in subjects.items() for name in names if {name, video} <= videos.keys()]
    if pairs:
        units = index_videos.plan_refuse_same_names({name: (videos[name], videos[video]) for name, video in pairs})
        run.stage("refuse_twins", units, index_videos.refuse_same_names, cheap=True)
    return {name: file for name, file in videos.items() if name not in dict(pairs)}


def report_videos(run: Run, listing: VideoListing, *, known: int = 0) -> None:
    """Report the account of videos, and refuse those that share a name. ``known``: as in ``Run.report_inputs``."""
    run.report_inputs(listing.account, known=known)
    if listing.same_names:
        units = index_videos.plan_refuse_same_names(listing.same_names)
        run.stage("refuse_twins", units, index_videos.refuse_same_names, cheap=True)


def extract_videos(
    run: Run,
    videos: Mapping[str, IndexedVideo],
    *,
    params: crop_faces.CropParams,
    backbone: BackboneChoice,
    subjects: Mapping[str, Sequence[str]],
    segment_frames: int = crop_faces.SEGMENT_FRAMES,
    of_subjects: bool = True,
) -> Extracted:
    """Extract features from videos that have been indexed.

    Args:
        subjects: names of the subjects of videos with two.
        of_subjects: without crops, also select the features of each subject from those of all faces.
    """
    indexed, source = dict(videos), crop_faces.source_of(params)

    def find_faces() -> tuple[list[Unit[crop_faces.CropFacesArgs]], list[Unit[Any]], StageSummary]:
        units = crop_faces.plan_crop_faces(indexed, params=params, segment_frames=segment_frames)
        if params.keep_crops:
            return units, units, run.stage("crop_faces", units, crop_faces.compute, remove_others=True)
        embedding = embed_segments.plan_embed_segments(run.store, units, backbone=backbone)
        _report_repeated(run, embedding)
        return units, embedding, run.stage("embed_segments", embedding, embed_segments.compute, remove_others=True)

    units, work, summary = find_faces()
    wrong = {unit.key.value("video") for unit in work if unit.name in summary.reads_wrong_unit}
    if wrong:
        # The frames differ from the packets somewhere in the middle of the video.
        print_line(f"indexed again by decoding, because packets and frames differ: {', '.join(sorted(wrong))}")
        index_videos.remove_indexes(run.store, {stem: indexed[stem] for stem in wrong})
        again = index(run, {stem: location(indexed.pop(stem).details.path) for stem in wrong}, must_decode=True)
        indexed |= again
        units, work, _ = find_faces()
    cropped = crop_faces.cropped_videos(run.store, units)
    vectors = None if params.keep_crops else complete_videos(run.store, work)
    if vectors is not None:
        cropped = [video for video in cropped if video.stem in vectors]
    tracking = assign_subjects.plan_assign_subjects(cropped, source=source, subjects=subjects, params=TrackingParams())
    run.stage("assign_subjects", tracking, assign_subjects.compute, cheap=True)
    names = {video.stem for video in cropped}
    extracted = _embed(run, source, backbone, names, videos, vectors=vectors, of_subjects=of_subjects)
    remove_notes_of_deleted(run.store, [location(video.details.path) for video in videos.values()])
    return extracted


def find_cropped(
    run: Run, videos: Mapping[str, IndexedVideo], found_with: Collection[crop_faces.CropParams]
) -> frozenset[str]:
    """Return the names of indexed videos of which the store has all crops, for each of some parameters."""
    cropped = frozenset(videos)
    for params in found_with:
        units = crop_faces.plan_crop_faces(videos, params=replace(params, keep_crops=True))
        cropped &= {video.stem for video in crop_faces.cropped_videos(run.store, units)}
    return cropped


@dataclass(frozen=True)
class Everyone:
    """Everything that the persons of videos are predicted from.

    Attributes:
        subjects: those of the videos whose persons are known and whose faces all have features.
        others: video -> units of ``other_features``; without crops, of ``face_features``, which hold all faces.
    """

    subjects: tuple[embed_faces.SubjectFaces, ...]
    others: Mapping[str, Sequence[StoredUnit]]

    @property
    def videos(self) -> frozenset[str]:
        """Names of the videos."""
        return frozenset(one.video for one in self.subjects)


def extract_everyone(run: Run, extracted: Extracted, backbone: BackboneChoice) -> Everyone:
    """Compute the features of faces that are not a subject's, and join the tracks of each video to persons."""
    found = [
        one
        for one in embed_faces.subjects_of_source(run.store, extracted.source)
        if one.subject in extracted.videos_of_subjects and one.chosen_by
    ]
    missing = {one.video for one in found if one.subject not in extracted.complete}
    subjects = [one for one in found if one.video not in missing]
    lost, others = set[str](), extracted.vectors
    if others is None:
        units = embed_other_faces.plan_embed_other_faces(
            run.store, subjects, source=extracted.source, backbone=backbone
        )
        embedded = run.stage("embed_other_faces", units, embed_other_faces.compute, remove_others=True)
        lost |= {unit.key.value("video") for unit in units if unit.name in embedded.missing}
        others = complete_videos(run.store, units)
    persons = identify_persons.plan_identify_persons(run.store, subjects, source=extracted.source)
    identified = run.stage("identify_persons", persons, identify_persons.compute)
    lost |= {unit.key.value("video") for unit in persons if unit.name in identified.missing}
    complete = tuple(one for one in subjects if one.video not in lost)
    return Everyone(complete, others)


def index(run: Run, videos: Mapping[str, Location], *, must_decode: bool = False) -> dict[str, IndexedVideo]:
    """Find the frames of videos (stem -> file). ``must_decode``: regardless of their packets."""
    with reading_inputs(*videos.values()):
        videos = _without_other_files(run, videos)
        planned = index_videos.plan_index_videos(videos, must_decode=must_decode)
    units = {unit.key.value("video"): unit for unit in planned}
    run.stage("index_videos", list(units.values()), index_videos.compute)
    known = index_videos.indexed_videos(run.store)
    # If a file has changed and cannot be read any more, its older index is that of another file.
    return {
        stem: known[stem]
        for stem, unit in units.items()
        if stem in known and known[stem].manifest.fingerprint == unit.fingerprint
    }


def _without_other_files(run: Run, videos: Mapping[str, Location]) -> dict[str, Location]:
    """Refuse videos that would replace the results of another file of the same name; return the others."""
    others = index_videos.find_other_files(run.store, videos)
    if others.gone:
        name, file = next(iter(others.gone.items()))
        more = f" and {len(others.gone) - 1:,} more" if len(others.gone) > 1 else ""
        print_line(f"note: the results of files that are gone are replaced: {videos[name]} replaces {file}{more}")
    if others.present:
        pairs = {name: (videos[name], file) for name, file in others.present.items()}
        units = index_videos.plan_refuse_same_names(pairs)
        run.stage("refuse_twins", units, index_videos.refuse_other_file, cheap=True)
    return {name: file for name, file in videos.items() if name not in others.present}


def _report_repeated(run: Run, units: Sequence[Unit[embed_segments.EmbedCropsArgs[crop_faces.CropFacesArgs]]]) -> None:
    """Print how many videos are decoded again because of another backbone."""
    stored = [unit for unit in units if unit.arguments.stored is not None]
    if stored:
        known = run.store.manifests("face_features", backbone=stored[0].key.value("backbone"))
        if again := {unit.key.value("video") for unit in stored if unit.key not in known}:
            print_line(
                f"note: {counted(len(again), 'video')} decoded again for this backbone, because no crops are stored"
            )


def _embed(
    run: Run,
    source: str,
    backbone: BackboneChoice,
    names: Collection[str],
    videos: Collection[str],
    *,
    vectors: Mapping[str, Sequence[StoredUnit]] | None = None,
    of_subjects: bool = True,
) -> Extracted:
    """Compute the features of all subjects whose video or own name is in ``names``, or select them from ``vectors``."""
    wanted = set(names)
    faces = [f for f in embed_faces.subjects_of_source(run.store, source) if f.subject in wanted or f.video in wanted]
    units: list[Unit[Any]] = []
    missing: Collection[str] = ()
    if vectors is None:
        units += embed_faces.plan_embed_faces(faces, source=source, backbone=backbone)
        missing = run.stage("embed_faces", units, embed_faces.compute, remove_others=True).missing
    elif of_subjects:
        units += select_features.plan_select_features(faces, vectors)
        missing = run.stage("select_features", units, select_features.compute, remove_others=True, cheap=True).missing
    incomplete = {unit.key.value("subject") for unit in units if unit.name in missing}
    complete = frozenset(one.subject for one in faces if one.subject not in incomplete)
    of_videos = {one.subject: one.video for one in faces}
    return Extracted(backbone.variant, source, tuple(videos), complete, of_videos, vectors)


def _default_source(layout: DataLayout) -> Source:
    if layout.videos or layout.video_listing.same_names:
        return "mtcnn"
    if not layout.crops:
        skipped = layout.video_listing.account.describe_first()
        raise InputError(
            f"{layout.root}: expected videos, or crops in cropped/ or cropped_aligned/, found none{skipped}"
        )
    if len(layout.crops) > 1:
        found = "; ".join(f"{source}: {', '.join(map(str, folders))}" for source, folders in layout.crops.items())
        raise InputError(f"{layout.root}: expected one source of crops, found {found}; choose one with --source")
    return "cropped" if "cropped" in layout.crops else "cropped_aligned"


def _import_crops(
    run: Run,
    request: ExtractParameters,
    layout: DataLayout,
    source: Source,
    backbone: BackboneChoice,
) -> Extracted:
    if source not in layout.crops:
        sources = ", ".join(layout.crops) or "none"
        raise InputError(f"{request.data}: expected crops of source {source}, found {sources}")
    found = list_crops(layout.crops[source], first_crop=request.first_crop)
    crops = _limited(found.subjects, request.limit)
    for subject in found.subjects.keys() - crops.keys():
        for crop in found.subjects[subject]:
            found.account.drop(crop.path, _BEYOND_LIMIT)
    for archive in packed_crops(layout, source):
        found.account.skip(archive, ARCHIVES)
    run.report_inputs(found.account)
    counts = {stem: video.details.frame_count for stem, video in index(run, layout.videos).items()}
    if found.refused:
        refused = import_crops.plan_refuse_crops(found.refused, name=source)
        run.stage("refuse_crops", refused, import_crops.refuse_crops, cheap=True)
        _remove_refused(run, [unit.key for unit in refused])
    units = import_crops.plan_import_crops(crops, name=source, frame_counts=counts, first_crop=request.first_crop)
    run.stage("import_crops", units, import_crops.compute)
    extracted = _embed(run, import_crops.source_of(source), backbone, set(crops), layout.videos)
    run.count_inputs(crops, noun="subject", verb="extracted")
    return extracted


def packed_crops(layout: DataLayout, source: Source) -> list[Location]:
    """Return the archives that are named like folders of crops of the source which do not exist."""
    folders = layout.crops[source]
    there = {name for folder in folders for name in (folder.name, *(inside.name for inside in list_folders(folder)))}
    return [one for one in layout.archives if source_of_crop_folder(one.stem) == source and one.stem not in there]


def _remove_refused(run: Run, keys: Sequence[UnitKey]) -> None:
    """Remove what earlier runs made from crops that are refused now: no later stage may use it."""
    # Its imports take a fifth of a second of every start.
    from tasks.results.forget import find_unit_folders, remove_folders

    source = keys[0].value("source")
    known = run.store.manifests("faces", source=source)
    for key in keys:
        if key in known:
            run.store.remove_unit(key, known[key])
        made = find_unit_folders(run.store, key.item, [key.part])
        remove_folders(
            run.store,
            [one for one in made if one.dataset in ("outputs", "features") and one.variant.split()[-1] == source],
        )


def _limited(items: Mapping[str, T], limit: int | None) -> dict[str, T]:
    return dict(sorted(items.items())[:limit])


@takes(ExtractParameters)
def extract(parameters: ExtractParameters) -> Extracted:
    """Extract features from videos or official crops. An interrupted run continues at the first missing unit."""
    # Wrong weights end the run before the store is created.
    backbone = find_backbone(parameters)
    with Run(parameters.store, dask_address=scheduler_of(parameters), workers=parameters.workers) as run:
        extracted = extract_features(run, parameters, backbone)
        run.print_summary()
        run.print_counts()
        run.raise_for_failures()
    return extracted
