"""Identity and method of indexed videos."""

from data_contracts.details.datasets import VideoDetails
from data_contracts.store.fingerprint import digest_of_file
from data_contracts.store.store import Store
from tasks.extract import index_videos
from tasks.extract.index_videos import indexed_videos, plan_index_videos
from tasks.units import run_unit
from tests.video_kinds import write_kind


def index(store, videos):
    for unit in plan_index_videos(videos):
        assert run_unit(store.url, index_videos.compute, unit).cause is None
    return indexed_videos(store)


def test_only_an_index_that_differs_from_packets_enters_the_identity(tmp_path):
    """Later stages depend on the identity: the faces of the first video in an older store are still right."""
    names = ("closed.mp4", "h264.avi", "altref_vp8.webm", "not_coded.avi")
    store, videos = Store(tmp_path / "store"), {name: write_kind(name, tmp_path) for name in names}
    found = index(store, {name.replace(".", "_"): path for name, path in videos.items()})
    equal = {name: found[name.replace(".", "_")].manifest.identity == digest_of_file(videos[name]) for name in names}
    assert equal == {"closed.mp4": True, "h264.avi": True, "altref_vp8.webm": False, "not_coded.avi": False}
    methods = {name: VideoDetails.of(found[name.replace(".", "_")].manifest).index_method for name in names}
    assert methods == {
        "closed.mp4": "packets",
        "h264.avi": "decoding",
        "altref_vp8.webm": "packets",
        "not_coded.avi": "decoding",
    }
