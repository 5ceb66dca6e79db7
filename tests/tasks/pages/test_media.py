import os
from pathlib import Path

from data_contracts.store.store import Store
from data_contracts.video.packets import index_video
from tasks.pages.media import find_media
from tests.video_factory import VideoSpec, write_video


def test_a_video_whose_name_is_not_utf8_is_linked_by_the_bytes_of_its_name(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    write_video(path, VideoSpec(frame_count=3))
    media = find_media(Store(tmp_path / "store"), "reports/viewers/a", str(path), index_video(path))
    assert media.link == "../../../../caf%E9.mp4"
