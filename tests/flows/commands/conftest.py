"""A small generated store, and what is left in folders, for the tests of ``affwild2 forget``."""

import zipfile

import pytest

from data_contracts.store.store import Store
from tasks.backbones import BackboneChoice
from tests.benchmarks.generated_store import fill_store, make_videos


def mentions(name, *folders):
    """Find every file or folder whose path, content or unzipped content contains the name."""
    found = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            data = path.read_bytes() if path.is_file() else b""
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    data += b"".join(info.filename.encode() + archive.read(info) for info in archive.infolist())
            if name in str(path.relative_to(folder)) or name.encode() in data:
                found.append(str(path.relative_to(folder)))
    return found


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def generated(tmp_path):
    """Make a store and its videos, two of which have names with the same beginning."""
    videos = make_videos(tmp_path / "videos", 1)
    for name in ("clip", "clip_left"):
        videos[name] = tmp_path / "videos" / f"{name}.mp4"
        videos[name].write_text(name)
    fill_store(Store(tmp_path / "store"), videos, backbone=BackboneChoice("emotion_lite0"))
    return tmp_path / "store", videos
