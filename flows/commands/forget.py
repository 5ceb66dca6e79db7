"""``affwild2 forget``: remove everything that was made from a video or image, or with a head.

Faces are personal data.
"""

import contextlib
import difflib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from data_contracts.challenge.videos import has_video_suffix, name_of_video
from data_contracts.details.heads import CellDetails, HeadDetails
from data_contracts.errors import InputError, StoreError, counted, explain_os_error
from data_contracts.files.locations import Location, location
from data_contracts.store.arrivals import forget_seen, names_seen
from data_contracts.store.bundles import Bundle, list_bundles
from data_contracts.store.contents import require_store
from data_contracts.store.lock import lock_folder, lock_store
from data_contracts.store.store import Store
from data_contracts.vocabulary import normalize_name, video_of_subject
from flows.commands.parameters import ForgetParameters
from flows.engine.console import print_error, print_line, print_table, print_warning
from models.engines.progress import track
from tasks.images.forget_images import (
    ImageTraces,
    find_image_traces,
    known_images,
    remove_image,
    resolve_image,
)
from tasks.images.write_images import has_images
from tasks.reproduce.fit_cell import CELLS
from tasks.reproduce.grid import list_cells
from tasks.results.forget import (
    LabelSet,
    StoredFolder,
    find_labels,
    find_mentions,
    find_reports,
    find_results,
    find_unit_folders,
    indexed_path,
    names_in_results,
    names_of_videos,
    remove_folders,
    remove_from_result,
    remove_labels,
    remove_report,
    subjects_of_video,
)
from tasks.results.forget_head import (
    HeadTraces,
    find_head_traces,
    find_imported,
    resolve_head,
    resolve_imported,
)
from tasks.results.prediction_folder import (
    Predictions,
    drop_folder,
    find_predictions,
    is_damaged,
    list_predictions,
    note_folder,
    noted_folders,
    open_folder,
    read_record,
    remove_predictions,
)
from tasks.results.summary import remove_from_summary

_WOULD_BE_REMOVED, _REMOVED_IN_PART = "would be removed", "removed, except what is listed below"


@dataclass(frozen=True)
class Traces:
    """Everything that was made from one video, and the heads that were fitted on it.

    Attributes:
        video: stem of the video file.
        subjects: subjects in the video.
        path: path of the indexed file, or None if it is unknown.
        heads: folders of the heads that were fitted on the video, according to labels and features. They are not
            removed.
        cells: number of such heads among those of ``reproduce``.
    """

    video: str
    subjects: list[str]
    path: str | None
    units: list[StoredFolder]
    labels: list[LabelSet]
    results: list[Bundle]
    predictions: list[Predictions]
    reports: list[str]
    heads: list[str]
    cells: int


@dataclass
class _Folders:
    """The folders of predictions that could be reached, and a line for each of the others."""

    reached: list[Store] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def forget(parameters: ForgetParameters) -> int:
    """Remove everything that was made from videos (names or files) from a store and from folders of predictions.

    Heads are removed with their outputs, post-processings and submissions; predictions that they made are listed.

    Returns:
        1 if something could not be reached or removed, which is listed; else 0.

    Raises:
        InputError: the URL has no store, or a video, head or folder is unknown or not given. Nothing is removed.
        StoreError: the store cannot be read or written.
    """
    store = Store(parameters.store)
    require_store(store)
    if not (parameters.videos or parameters.heads or parameters.features or parameters.drop_folders):
        raise InputError("forget: expected names of videos, heads with --head, --features, or --drop-folder, got none")
    dropped = [_resolve_folder(store, place) for place in parameters.drop_folders or ()]
    folders = _open_folders(store, parameters.out, without=dropped)
    asked = _resolve(store, parameters, folders.reached)
    if parameters.dry_run:
        for place in dropped:
            _print_dropped(place, "would be dropped")
        _show(store, asked, folders)
        problems: list[str] = []
    else:
        with lock_store(store, on_wait=print_warning), contextlib.ExitStack() as locks:
            for folder in sorted(folders.reached, key=lambda one: one.root):
                # Nothing can be removed from a folder that cannot be written to; the attempt is reported.
                with contextlib.suppress(StoreError):
                    locks.enter_context(lock_folder(folder, on_wait=print_warning))
            for place in dropped:
                drop_folder(store, place)
                _print_dropped(place, "dropped")
            if parameters.out:
                note_folder(store, Store(parameters.out))
            problems = _remove(store, asked, folders)
            for folder in folders.reached:
                with _collecting(folders.problems, folder.root):
                    if not _has_predictions(folder):
                        drop_folder(store, folder.root)
    return _print_not_removed([*folders.problems, *problems], is_asked=asked != _Asked())


def _has_predictions(folder: Store) -> bool:
    return bool(list_predictions(folder) or is_damaged(folder) or read_record(folder) or has_images(folder))


@dataclass(frozen=True)
class _Asked:
    """Names of videos, paths of images, heads and imported features that a command removes."""

    videos: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    imported: tuple[str, ...] = ()


def _resolve(store: Store, parameters: ForgetParameters, folders: Sequence[Store]) -> _Asked:
    """Return what the user means, each once.

    Raises:
        InputError: a name is unknown, or several match.
    """
    given = dict.fromkeys(parameters.videos or ())
    known = known_images(store, folders) if given else set()
    images = {one: image for one in given if (image := resolve_image(one, known)) is not None}
    of_videos = [one for one in given if one not in images]
    return _Asked(
        tuple(dict.fromkeys(name for one in of_videos for name in _resolve_video(store, one, folders))),
        tuple(dict.fromkeys(images.values())),
        tuple(dict.fromkeys(resolve_head(store, name) for name in parameters.heads or ())),
        tuple(dict.fromkeys(resolve_imported(store, name) for name in parameters.features or ())),
    )


def _show(store: Store, asked: _Asked, folders: _Folders) -> None:
    """Print what would be removed."""
    for name in asked.heads:
        _print_head(find_head_traces(store, name, folders.reached, beside=asked.heads), _WOULD_BE_REMOVED)
    for name in track(asked.videos, "finding what was made from videos: {}"):
        traces = _find_traces(store, name, folders)
        print_traces(traces, _WOULD_BE_REMOVED)
        _print_remaining(traces)
    for image in asked.images:
        _print_image(find_image_traces(store, image, folders.reached), _WOULD_BE_REMOVED)
    for name in asked.imported:
        _print_head(find_imported(store, name, beside=asked.heads), _WOULD_BE_REMOVED)


def _remove(store: Store, asked: _Asked, folders: _Folders) -> list[str]:
    """Remove and print it. Return a line for each file that could not be removed."""
    problems: list[str] = []
    for name in asked.heads:
        problems += _remove_head(store, find_head_traces(store, name, folders.reached, beside=asked.heads))
        for path in find_mentions(store, [name]):
            print_line(f"not removed: {store.locate(path)} names the head")
    for name in track(asked.videos, "removing what was made from videos: {}"):
        traces = _find_traces(store, name, folders)
        kept = remove_traces(store, traces)
        problems += kept
        print_traces(traces, _REMOVED_IN_PART if kept else "removed")
        _print_remaining(traces)
        _print_mentions(store, traces.subjects)
    for image in asked.images:
        problems += _remove_image(store, find_image_traces(store, image, folders.reached))
    for name in asked.imported:
        problems += _remove_head(store, find_imported(store, name, beside=asked.heads))
    return problems


def _remove_head(store: Store, traces: HeadTraces) -> list[str]:
    problems: list[str] = []
    with _collecting_files(problems, store):
        remove_folders(store, traces.folders)
    _print_head(traces, _REMOVED_IN_PART if problems else "removed")
    return problems


def _remove_image(store: Store, traces: ImageTraces) -> list[str]:
    problems: list[str] = []
    with _collecting_files(problems, store):
        remove_image(store, traces)
    _print_image(traces, _REMOVED_IN_PART if problems else "removed")
    _print_mentions(store, [PurePath(traces.image).name])
    return problems


def _print_mentions(store: Store, names: Collection[str]) -> None:
    for path in find_mentions(store, names):
        print_line(f"not removed: {store.locate(path)} may contain the name; check and delete it")


def _print_image(traces: ImageTraces, what: str) -> None:
    rows: list[list[object]] = [["image_faces", key.value("source"), "rows of the image"] for key, _ in traces.blocks]
    rows += [[key.dataset, key.partitions[0][1], "block, computed again by the next run"] for key, _ in traces.derived]
    rows += [["predictions", folder.root, "rows of the image"] for folder in traces.folders]
    rows += [["predictions", folder.root, "table of images, which cannot be read"] for folder in traces.unread]
    rows += [[*name, counted(count, "file")] for name, count in _count_files(traces.reports).items()]
    print_table(f"{traces.image}: {what}", ["what", "variant", "removed"], rows, is_result=True)
    if location(traces.image).exists():
        print_line(f"not removed: the image file {traces.image}; the next run on its folder reads it again")


def _open_folders(store: Store, out: str | None, *, without: Collection[str]) -> _Folders:
    """Open the folders of predictions: recorded in the store, around a store that ``score`` made, and ``out``."""
    if out is not None and not read_record(Store(out)):
        raise InputError(f"{out}: expected a folder of predictions, found none; check --out")
    found = _Folders()
    for place in dict.fromkeys([*noted_folders(store), *([Store(out).root] if out else [])]):
        if place not in without:
            with _collecting(found.problems, place):
                found.reached.append(open_folder(place))
    around = store.root.rsplit("/", 1)[0]
    if around not in ("", "s3:/", *without, *(folder.root for folder in found.reached)):
        with contextlib.suppress(InputError, OSError):
            if read_record(Store(around)):
                found.reached.append(Store(around))
    return found


@contextlib.contextmanager
def _collecting(problems: list[str], place: str) -> Iterator[None]:
    """Add a line to ``problems`` if a folder of predictions cannot be used in the block."""
    try:
        yield
    except (InputError, OSError) as error:
        cause = str(error) if isinstance(error, InputError) else explain_os_error(error) or f"{place}: {error}"
        cause = cause if place in cause else f"{place}: {cause}"
        problems.append(
            f"{cause.rstrip(';')}; make it available and run again, pass --out if it was moved, or --drop-folder if it "
            "is gone for good"
        )


def _resolve_folder(store: Store, given: str) -> str:
    """Return the place of a folder as the list in the store spells it.

    Raises:
        InputError: the list does not contain it.
    """
    known = noted_folders(store)
    place = given if given in known else Store(given).root
    if place not in known:
        listed = ", ".join(known) or "none"
        raise InputError(f"--drop-folder {given}: expected a folder of the list in {store.url}; it has: {listed}")
    return place


def _print_dropped(place: str, what: str) -> None:
    """Print what remains in a folder that the list no longer names."""
    try:
        subjects = {name.rsplit(".", 1)[0] for name in list_predictions(open_folder(place))}
        remaining = (
            f"predictions of {counted(len(subjects), 'subject')} remain there" if subjects else "nothing is left"
        )
    except (InputError, OSError) as error:
        remaining = f"predictions that may be there remain ({error})"
    print_line(f"{what} from the list of folders: {place}; {remaining}", is_result=True)


def _print_not_removed(problems: Sequence[str], *, is_asked: bool) -> int:
    """Print what could not be reached or removed; return the exit code."""
    if not is_asked:
        return 0
    for line in dict.fromkeys(problems):
        print_error(f"not removed: {line}")
    return 1 if problems else 0


def _resolve_video(store: Store, given: str, folders: Sequence[Store]) -> list[str]:
    """Return the name of the video that the user means, in all spellings that the store has of it."""
    known = names_of_videos(store) | names_in_results(store) | names_seen(store)
    # An earlier call may have removed the video without reaching these folders.
    recorded = {name for folder in folders for name in read_record(folder)} - known
    known |= recorded | {video_of_subject(name) for name in recorded}
    if given in known:
        return _spellings_of(given, known)
    path = location(given)
    names = dict.fromkeys((normalize_name(given), path.stem, name_of_video(path), path.name, normalize_name(path.name)))
    stem = next((name for name in names if name in known), path.stem if has_video_suffix(path) else path.name)
    if stem not in known:
        near = difflib.get_close_matches(stem, sorted(known), n=3)
        hint = (
            f"did you mean {', '.join(near)}?" if near else f"no similar name among its {counted(len(known), 'video')}"
        )
        raise InputError(f"{given}: expected a video with data in {store.url}, found none; {hint}")
    indexed = indexed_path(store, stem)
    if indexed and not _may_be_same(path, location(indexed)):
        raise InputError(
            f"{given}: expected the indexed file of {stem}, got another file; the indexed file is {indexed}"
        )
    return _spellings_of(stem, known)


def _spellings_of(name: str, known: Collection[str]) -> list[str]:
    """Return the known names that look like this one. Earlier versions stored other Unicode forms than NFC."""
    return sorted(one for one in known if normalize_name(one) == normalize_name(name))


def _may_be_same(given: Location, indexed: Location) -> bool:
    if isinstance(given, Path) and isinstance(indexed, Path):
        return not (given.exists() and indexed.exists()) or given.samefile(indexed)
    return str(given) == str(indexed) or (isinstance(given, Path) and not given.exists())


def _find_traces(store: Store, video: str, folders: _Folders) -> Traces:
    subjects = subjects_of_video(store, video, videos=names_of_videos(store))
    units, labels = find_unit_folders(store, video, subjects), find_labels(store, subjects)
    predictions = []
    for folder in list(folders.reached):
        reached = len(folders.problems)
        with _collecting(folders.problems, folder.root):
            predictions.append(find_predictions(folder, subjects))
        if len(folders.problems) > reached:
            folders.reached.remove(folder)
    return Traces(
        video=video,
        subjects=subjects,
        path=indexed_path(store, video),
        units=units,
        labels=labels,
        results=find_results(store, subjects),
        predictions=predictions,
        reports=find_reports(store, subjects),
        heads=_fitted_on({one.folder: HeadDetails.of(one) for one in list_bundles(store, "heads")}, units, labels),
        cells=len(_fitted_on({one.folder: CellDetails.of(one) for one in list_cells(store)}, units, labels)),
    )


def _fitted_on(
    heads: Mapping[str, HeadDetails | CellDetails], units: Sequence[StoredFolder], labels: Sequence[LabelSet]
) -> list[str]:
    """Return the folders of the heads that were fitted on features and labels of a video."""
    features = {unit.variant for unit in units if unit.dataset == "features"}

    def takes_them(head: HeadDetails | CellDetails) -> bool:
        members = head.members if isinstance(head, HeadDetails) else ()
        return any(f"{one.backbone} {one.source}" in features for one in (head, *members))

    sets = {(one.key.value("task"), one.key.value("set")) for one in labels}
    return [
        folder
        for folder, head in heads.items()
        if takes_them(head) and any((head.task, name) in sets for name in head.trained_on)
    ]


def remove_traces(store: Store, traces: Traces) -> list[str]:
    """Remove everything that was found. Return a line for each folder or file that could not be removed.

    Removes results first and the rows of the video last, so that an interrupted call can be repeated.
    """
    problems: list[str] = []
    for found in traces.predictions:
        with _collecting(problems, found.target.root):
            remove_predictions(found)
            remove_from_summary(found.target, traces.subjects)
    for path in traces.reports:
        with _collecting_files(problems, store):
            remove_report(store, path)
    for bundle in traces.results:
        with _collecting_files(problems, store):
            remove_from_result(store, bundle, traces.subjects)
    with _collecting_files(problems, store):
        store.remove_from_indexes([traces.video, *traces.subjects], labels=[one.key for one in traces.labels])
        remove_labels(store, traces.labels, traces.subjects)
        forget_seen(store, traces.video)
        remove_folders(store, traces.units)
    return problems


@contextlib.contextmanager
def _collecting_files(problems: list[str], store: Store) -> Iterator[None]:
    """Add a line to ``problems`` if a file of the store cannot be removed in the block."""
    try:
        yield
    except StoreError as error:
        # Every other request to S3 would fail, too, after minutes.
        if not store.is_local:
            raise
        problems.append(str(error))
    except OSError as error:
        cause = f"expected a file that can be removed, got: {error.strerror or error}"
        problems.append(f"{error.filename or 'store'}: {cause}; correct it and run again")


def _print_head(traces: HeadTraces, what: str) -> None:
    """Print a table of the folders of a head, and the predictions that remain."""
    rows: list[list[object]] = [
        [*one.path.split("/", 1), one.files, one.rows, round(one.size_bytes / 1e6, 3)] for one in traces.folders
    ]
    print_table(f"{traces.name}: {what}", ["what", "name", "files", "rows", "MB"], rows, is_result=True)
    for line in traces.notes:
        print_line(f"not removed: {line}")
    for folder, count in traces.predictions.items():
        print_line(
            f"not removed: predictions of {counted(count, 'subject')} in {folder} that this head made; score their "
            "videos again, or delete them"
        )


def print_traces(traces: Traces, what: str) -> None:
    """Print a table of what was found, per dataset and variant."""
    rows: list[list[object]] = [
        [unit.dataset, unit.variant, unit.files, unit.rows, round(unit.size_bytes / 1e6, 3)] for unit in traces.units
    ]
    rows += [["labels", str(one.key), 1, one.lines, None] for one in traces.labels]
    rows += [[*bundle.folder.split("/"), None, None, None] for bundle in traces.results]
    rows += [
        ["predictions", found.target.root, len(found.files), None, round(found.size_bytes / 1e6, 3)]
        for found in traces.predictions
        if found.files or found.recorded
    ]
    rows += [[*name, count, None, None] for name, count in _count_files(traces.reports).items()]
    print_table(f"{traces.video}: {what}", ["what", "variant", "files", "rows", "MB"], rows, is_result=True)


def _count_files(paths: Sequence[str]) -> Counter[tuple[str, str]]:
    """Return (top folder, folder in it) -> number of the files below."""
    return Counter((path.split("/")[0], path.split("/")[1]) for path in paths)


def _print_remaining(traces: Traces) -> None:
    for head in traces.heads:
        print_line(
            f"not removed: {head}: fitted on this video among others; for a head without it, fit again and delete this "
            "one"
        )
    if traces.cells:
        print_line(
            f"not removed: {CELLS}: {counted(traces.cells, 'head')} of reproduce, fitted on this video among others; "
            "the next reproduce fits them again without it"
        )
    if traces.labels or any(bundle.folder.startswith("submissions/") for bundle in traces.results):
        print_line(
            "not removed: annotation files and test lists outside of the store; the next fit or submit reads them again"
        )
    if traces.path and location(traces.path).exists():
        print_line(
            f"not removed: the video file {traces.path}; the next run on its folder extracts it again; move or "
            "delete it"
        )
