import os

import polars as pl
import pytest

from data_contracts.store.store import Store
from tasks.extract.embed_faces import BackboneChoice
from tasks.fit import predict_outputs
from tasks.fit.fit_head import provide_zero_shot_head
from tasks.fit.head_selection import ServingHead
from tasks.fit.subject_features import find_features
from tasks.results import write_predictions
from tasks.units import run_unit
from tests.benchmarks.generated_store import FRAMES_PER_VIDEO, fill_store, make_videos


@pytest.fixture
def written(tmp_path):
    """A function that writes the predictions of three videos and returns when each file was written."""
    store, backbone = Store(tmp_path / "store"), BackboneChoice("emotion_lite0")
    videos = make_videos(tmp_path / "videos", 3)
    fill_store(store, videos, backbone=backbone)
    head, variant = provide_zero_shot_head(store, backbone), find_features(store)
    for unit in predict_outputs.plan_predict_outputs(store, variant, head=head):
        assert run_unit(store.url, predict_outputs.compute, unit).cause is None

    def write():
        heads = [(ServingHead(head, ("expr",)), variant.source)]
        paths = write_predictions.write_predictions(store, sorted(videos), heads=heads, out=tmp_path / "out")
        assert len(paths) == 6 and all(path.parent == tmp_path / "out" for path in paths)
        return {path: path.stat().st_mtime_ns for path in paths}

    return write


def test_every_frame_has_a_row_and_no_other_files_are_left(written):
    for path in written():
        table = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)
        assert table["frame"].to_list() == list(range(1, FRAMES_PER_VIDEO + 1))
        assert table["time_seconds"].to_list() == [n / 25 for n in range(1, FRAMES_PER_VIDEO + 1)]
        assert "p_happiness" in table.columns
    names = {path.name for path in path.parent.iterdir()}
    assert names == {path.name for path in written()} | {write_predictions.RECORD}


def test_only_outdated_files_are_written_again(written, monkeypatch):
    first = written()
    assert written() == first
    changed, gone = sorted(first)[0], sorted(first)[2]
    content = {path: path.read_bytes() for path in first}
    changed.write_bytes(b"edited by hand")
    gone.unlink()
    second = written()
    assert {path for path in first if first[path] != second[path]} == set(sorted(first)[:4])
    assert {path: path.read_bytes() for path in first} == content
    (changed.parent / write_predictions.RECORD).write_text("{}")
    third = written()
    assert all(third[path] > second[path] for path in first)
    monkeypatch.setattr(write_predictions, "CODE_VERSION", write_predictions.CODE_VERSION + 1)
    assert all(stamp > third[path] for path, stamp in written().items())


def test_files_written_before_an_error_are_not_written_again(written, tmp_path, monkeypatch):
    whole, files = write_predictions._write_files, []

    def full_disk_at_the_second(table, target, names):
        files.extend(names)
        if len(files) > 2:
            raise OSError(28, os.strerror(28))
        whole(table, target, names)

    with monkeypatch.context() as patch:
        patch.setattr(write_predictions, "_write_files", full_disk_at_the_second)
        with pytest.raises(OSError, match="No space"):
            written()
    stamps = {tmp_path / "out" / name: (tmp_path / "out" / name).stat().st_mtime_ns for name in files[:2]}
    assert written().items() >= stamps.items()
