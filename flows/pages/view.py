"""``affwild2 view``: a page per video with its picture and a timeline of every person."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from data_contracts.challenge.videos import name_of_video
from data_contracts.errors import InputError, StoreError, counted
from data_contracts.files.locations import location
from data_contracts.store.contents import require_store
from data_contracts.store.store import Store
from data_contracts.vocabulary import is_simulated, normalize_name, video_of_subject
from flows.commands.parameters import ViewParameters
from flows.engine.console import print_error, print_line, print_warning
from tasks.extract.index_videos import indexed_videos, read_video_index
from tasks.fit.head_selection import ServingHead, select_heads
from tasks.pages.media import find_media
from tasks.pages.thumbnails import assign_faces, make_strips, read_stored_faces
from tasks.pages.timeline import Timeline, compute_timeline, read_predicted, with_labels
from tasks.pages.viewer import folder_of_viewer, write_viewer
from tasks.results.forget import subjects_of_video
from tasks.results.prediction_folder import noted_folders, open_folder, read_record

_DEFAULT_FPS = 25.0


@dataclass(frozen=True)
class _Sources:
    """Where predictions are found: folders, then the outputs of heads (None: not asked for, and none can be chosen)."""

    store: Store
    folders: Sequence[Store]
    heads: Sequence[ServingHead]

    def videos(self) -> list[str]:
        """Return the names of all videos with predictions or outputs."""
        names = {name for folder in self.folders for name in read_record(folder)}
        for serving in self.heads:
            units = self.store.manifests("outputs", head=serving.head.name)
            names |= {video_of_subject(key.value("subject")) for key in units}
        return sorted(names)

    def read(self, video: str) -> Timeline | None:
        """Return the timeline of a video from the newest predictions, else from outputs; None without any."""
        name = f"{video}.parquet"
        for folder in sorted(self.folders, key=lambda folder: folder.written_at(name), reverse=True):
            if found := read_predicted(self.store, folder, video):
                return found
        subjects = subjects_of_video(self.store, video, videos=())
        return compute_timeline(self.store, video, subjects, self.heads)


def view(parameters: ViewParameters) -> int:
    """Write the viewers of videos into the store and print their paths.

    Returns:
        1 if a video has no predictions or damaged ones, or a named one no face; the others have viewers. Else 0.

    Raises:
        InputError: there is no store, none of the videos is known, or several heads could be shown.
        StoreError: the store cannot be written to.
    """
    if parameters.store is None and parameters.out is None:
        raise InputError("view: expected a store with --store or a folder of predictions with --out, got neither")
    store = Store(parameters.store or f"{str(parameters.out).rstrip('/')}/store")
    if not parameters.store and not store.exists(""):
        raise InputError(f"{parameters.out}: expected the store of these predictions in it, found none; pass --store")
    require_store(store)
    sources = _find_sources(store, parameters)
    known = sources.videos()
    if not known:
        raise InputError(f"{store.url}: expected predictions or outputs of heads, found none; run affwild2 score first")
    given = {_resolve(one, known, store): one for one in parameters.videos or known}
    failed, faceless = 0, []
    for video, spelling in given.items():
        try:
            timeline = sources.read(video)
            if timeline is None:
                raise InputError(f"{video}: expected predictions of persons, found none; score the video first")
            if not timeline.persons:
                print_line(f"{video}: no viewer, because no face was found in the video")
                faceless.append(video)
                continue
            path = _write(store, timeline, spelling, with_thumbnails=not parameters.no_thumbnails)
            print_line(f"viewer: {store.locate(path)}")
        except StoreError:
            raise
        except InputError as error:
            # Other videos have viewers nevertheless.
            print_error(str(error))
            failed += 1
    if len(given) > 1:
        print_line(f"{counted(len(given) - failed - len(faceless), 'viewer')} written")
    # Without names, a video without a face is no problem.
    return 1 if failed or (parameters.videos and faceless) else 0


def _find_sources(store: Store, parameters: ViewParameters) -> _Sources:
    """Find the folders and heads to show. Named heads are shown instead of predictions."""
    if parameters.heads:
        return _Sources(store, [], select_heads(store, parameters.heads, postprocessings=parameters.postprocessings))
    folders = []
    for place in [parameters.out] if parameters.out else noted_folders(store):
        try:
            folders.append(open_folder(place))
        except (InputError, OSError) as error:
            if parameters.out:
                raise
            print_warning(f"note: {error}; its predictions are not shown")
    try:
        heads = [] if parameters.out else select_heads(store, postprocessings=parameters.postprocessings)
    except InputError:
        # Predictions show what score chose. Without them, the user must choose.
        if not any(read_record(folder) for folder in folders):
            raise
        heads = []
    return _Sources(store, folders, heads)


def _resolve(given: str, known: Sequence[str], store: Store) -> str:
    """Return the name of the video that the user means by a name or a file."""
    path = location(given)
    for name in (given, normalize_name(given), path.stem, name_of_video(path), path.name):
        if name in known:
            return name
    near = difflib.get_close_matches(path.stem, known, n=3)
    hint = f"did you mean {', '.join(near)}?" if near else f"it has {counted(len(known), 'video')} with predictions"
    raise InputError(f"{given}: expected a video with predictions in {store.url}, found none; {hint}")


def _write(store: Store, timeline: Timeline, given: str, *, with_thumbnails: bool) -> str:
    video, strips = timeline.video, None
    indexed = indexed_videos(store).get(video)
    index = read_video_index(store, indexed) if indexed else None
    if index and timeline.seconds is None and index.frame_count == timeline.frame_count:
        timeline = replace(timeline, seconds=index.pts_seconds)
    if faces := read_stored_faces(store, video, source=timeline.faces):
        timeline, rows = assign_faces(timeline, faces)
        if with_thumbnails:
            try:
                strips = make_strips(store, faces, timeline.persons, rows, video=indexed)
            except InputError as error:
                print_warning(f"{video}: no thumbnails: {error}")
    path = _path_of(indexed.details.path if indexed else None, given)
    return write_viewer(
        store,
        with_labels(store, timeline),
        strips=strips,
        media=find_media(store, folder_of_viewer(video), path, index, on_copy=print_line),
        fps=(index and index.average_fps) or _DEFAULT_FPS,
        is_simulated=any(map(is_simulated, timeline.heads)),
    )


def _path_of(indexed: str | None, given: str) -> str | None:
    """Return the file that was indexed; the given one if it is a file and the indexed one is gone."""
    if indexed and location(indexed).exists():
        return indexed
    return given if location(given).is_file() else indexed
