"""From rows of ``frames`` and ``videos`` back to the index of one video."""

from data_contracts.errors import InputError
from data_contracts.store.manifest import UnitKey
from data_contracts.store.store import Store
from data_contracts.video.index import VideoIndex


def read_video_index(store: Store, stem: str) -> VideoIndex:
    """The stored index of a video.

    Raises:
        InputError: the video is not indexed in this store.
    """
    partitions = (("video", stem),)
    videos, frames = store.manifests("videos", video=stem), store.manifests("frames", video=stem)
    key, frames_key = UnitKey("videos", partitions), UnitKey("frames", partitions)
    if key not in videos or frames_key not in frames:
        raise InputError(f"{stem}: expected an indexed video in {store.url}, found none; run extract on it first")
    row = store.read_unit(key, videos[key]).to_pylist()[0]
    table = store.read_unit(frames_key, frames[frames_key])
    return VideoIndex.from_rows(row, table)
