"""Weights, heads and lists are opened before the first video is decoded: a damaged one ends a run that did nothing."""

from pathlib import Path

import pytest

from data_contracts.errors import InputError
from flows.extract import extract
from flows.pretrain import pretrain
from flows.rescore import rescore
from flows.score import score
from tests.backbone_files import damaged_files
from tests.video_factory import VideoSpec, write_video


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    return damaged_files(tmp_path_factory.mktemp("damaged"))


@pytest.fixture
def videos(tmp_path):
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "clip.mp4", VideoSpec(frame_count=2, width_px=64, height_px=48))
    return tmp_path / "videos"


def results_in(folder):
    return [path for path in Path(folder).rglob("*") if path.is_file() and path.name != ".lock"]


@pytest.mark.parametrize("command", ["extract", "score", "rescore", "pretrain"])
def test_damaged_weights_end_the_run_before_any_work(command, damaged, videos, tmp_path):
    (tmp_path / "labels.csv").write_text("picture,expression\nface.jpg,Happiness\n")
    runs = {
        "extract": lambda **options: extract(videos, str(tmp_path / "store"), **options),
        "score": lambda **options: score([videos], tmp_path / "out", **options),
        "rescore": lambda **options: rescore([videos], str(tmp_path / "store"), tmp_path / "out", **options),
        "pretrain": lambda **options: pretrain("emotion", tmp_path / "labels.csv", str(tmp_path / "store"), **options),
    }
    for message, path in damaged.items():
        with pytest.raises(InputError, match=rf"{path}: .*{message}") as error:
            runs[command](weights=path, backbone="emotion_lite0")
        assert "\n" not in str(error.value)
        assert not results_in(tmp_path / "store") and not results_in(tmp_path / "out")


def test_labels_of_validation_pictures_are_read_before_the_training_pictures(tmp_path):
    (tmp_path / "labels.csv").write_text("image,expression\nface.jpg,Happiness\n")
    (tmp_path / "validation.csv").write_text("image,expression\nface.jpg,unknown\n")
    with pytest.raises(InputError, match=r"validation\.csv: line 2"):
        pretrain(
            "emotion",
            tmp_path / "labels.csv",
            str(tmp_path / "store"),
            validation=tmp_path / "validation.csv",
            workers=1,
        )
    assert not results_in(tmp_path / "store")
