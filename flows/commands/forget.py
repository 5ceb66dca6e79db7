"""``affwild2 forget``: remove everything that was made from a video, or with a head. Faces are personal data."""

import contextlib
import difflib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_contracts.challenge.videos import has_video_suffix, name_of_video
from data_contracts.errors import InputError, StoreError, counted
from data_contracts.files.locations import Location, location
from data_contracts.store.arrivals import forget_seen, names_seen
from data_contracts.store.bundles import Bundle, list_bundles
from data_contracts.store.contents import require_store
from data_contracts.store.details import HeadDetails
from data_contracts.store.lock import lock_store
from data_contracts.store.store import Store
from data_contracts.vocabulary import normalize_name
from flows.commands.parameters import ForgetParameters
from flows.engine.console import print_line, print_table, print_warning
from tasks.results.forget import (
    LabelSet,
    Predictions,
    UnitFolder,
    find_labels,
    find_mentions,
    find_predictions,
    find_reports,
    find_results,
    find_unit_folders,
    indexed_path,
    names_in_results,
    names_of_videos,
    remove_from_result,
    remove_labels,
    remove_predictions,
    remove_unit_folders,
    subjects_of_video,
)
from tasks.results.forget_head import HeadTraces, find_head_traces, remove_head, resolve_head
from tasks.results.prediction_folder import drop_folder, noted_folders, read_record


@dataclass(frozen=True)
class Traces:
    """Everything that was made from one video, and the heads that were fitted on it.

    Attributes:
        video: stem of the video file.
        subjects: subjects in the video.
        path: path of the indexed file, or None if it is unknown.
        heads: folders of the heads that were fitted on the video, according to labels and features. They are not
            removed.
    """

    video: str
    subjects: list[str]
    path: str | None
    units: list[UnitFolder]
    labels: list[LabelSet]
    results: list[Bundle]
    predictions: list[Predictions]
    reports: list[str]
    heads: list[str]


def forget(parameters: ForgetParameters) -> int:
    """Remove everything that was made from videos (names or files) from a store and from folders of predictions.

    Heads are removed with their outputs, post-processings and submissions; predictions that they made are listed.

    Raises:
        InputError: the URL has no store, or a video or head is unknown or not given. Nothing is removed.
        StoreError: a file cannot be written or removed.
    """
    store = Store(parameters.store)
    require_store(store)
    if not (parameters.videos or parameters.heads):
        raise InputError("forget: expected names of videos, or heads with --head, got none")
    folders = _prediction_folders(store, parameters.out)
    given = dict.fromkeys(parameters.videos or ())
    names = list(dict.fromkeys(name for one in given for name in _resolve_video(store, one, folders)))
    heads = list(dict.fromkeys(resolve_head(store, given) for given in parameters.heads or ()))
    if parameters.dry_run:
        for name in heads:
            _print_head(store, find_head_traces(store, name, folders), "would be removed")
        for name in names:
            traces = _find_traces(store, name, folders)
            print_traces(traces, "would be removed")
            _print_remaining(traces)
        return 0
    with lock_store(store, on_wait=print_warning):
        for name in heads:
            found = find_head_traces(store, name, folders)
            with _removing():
                remove_head(store, found)
            _print_head(store, found, "removed")
            for path in find_mentions(store, [name]):
                print_line(f"not removed: {store.locate(path)} names the head")
        for name in names:
            traces = _find_traces(store, name, folders)
            remove_traces(store, traces)
            print_traces(traces, "removed")
            _print_remaining(traces)
            for path in find_mentions(store, traces.subjects):
                print_line(f"not removed: {store.locate(path)} may contain the name; check and delete it")
        for folder in folders:
            if not read_record(folder):
                drop_folder(store, folder)
    return 0


def _prediction_folders(store: Store, out: str | None) -> list[Store]:
    """Return the folders of predictions: recorded in the store, around a store that ``score`` made, and ``out``."""
    if out is not None and not read_record(Store(out)):
        raise InputError(f"{out}: expected a folder of predictions, found none; check --out")
    around = store.root.rsplit("/", 1)[0]
    places = [*noted_folders(store), *([Store(out).root] if out else [])]
    if around not in ("", "s3:/") and read_record(Store(around)):
        places.append(around)
    return [Store(place) for place in dict.fromkeys(places)]


def _resolve_video(store: Store, given: str, folders: Sequence[Store]) -> list[str]:
    """Return the name of the video that the user means, in all spellings that the store has of it."""
    known = names_of_videos(store) | names_in_results(store) | names_seen(store)
    known = known.union(*(read_record(folder) for folder in folders))
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


def _find_traces(store: Store, video: str, folders: Sequence[Store]) -> Traces:
    subjects = subjects_of_video(store, video, videos=names_of_videos(store))
    units, labels = find_unit_folders(store, video, subjects), find_labels(store, subjects)
    return Traces(
        video=video,
        subjects=subjects,
        path=indexed_path(store, video),
        units=units,
        labels=labels,
        results=find_results(store, subjects),
        predictions=[find_predictions(folder, subjects) for folder in folders],
        reports=find_reports(store, subjects),
        heads=_heads_fitted_on(store, units, labels),
    )


def _heads_fitted_on(store: Store, units: Sequence[UnitFolder], labels: Sequence[LabelSet]) -> list[str]:
    features = {unit.variant for unit in units if unit.dataset == "features"}
    sets = {(one.key.value("task"), one.key.value("set")) for one in labels}
    heads = ((head.folder, HeadDetails.of(head)) for head in list_bundles(store, "heads"))
    return [
        folder
        for folder, head in heads
        if f"{head.backbone} {head.source}" in features and any((head.task, name) in sets for name in head.trained_on)
    ]


def remove_traces(store: Store, traces: Traces) -> None:
    """Remove everything that was found.

    Removes results first and the rows of the video last, so that an interrupted call can be repeated.
    """
    with _removing():
        for found in traces.predictions:
            remove_predictions(found)
        for path in traces.reports:
            store.remove(path)
        for bundle in traces.results:
            remove_from_result(store, bundle, traces.subjects)
        store.remove_from_indexes([traces.video, *traces.subjects], labels=[one.key for one in traces.labels])
        remove_labels(store, traces.labels, traces.subjects)
        forget_seen(store, traces.video)
        remove_unit_folders(store, traces.units)


@contextlib.contextmanager
def _removing() -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise StoreError(f"{error.filename}: expected a file that can be removed, got: {error.strerror}") from error


def _print_head(store: Store, traces: HeadTraces, what: str) -> None:
    """Print a table of the folders of a head, and the predictions that remain."""
    rows: list[list[object]] = [
        [*one.path.split("/", 1), one.files, one.rows, round(one.size_bytes / 1e6, 3)] for one in traces.folders
    ]
    print_table(f"{traces.name}: {what}", ["what", "name", "files", "rows", "MB"], rows)
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
    rows += [[*path.split("/")[:2], 1, None, None] for path in traces.reports]
    print_table(f"{traces.video}: {what}", ["what", "variant", "files", "rows", "MB"], rows)


def _print_remaining(traces: Traces) -> None:
    for head in traces.heads:
        print_line(
            f"not removed: {head}: fitted on this video among others; for a head without it, fit again and delete this "
            "one"
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
