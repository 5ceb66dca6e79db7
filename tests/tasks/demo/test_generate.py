import numpy as np
import pytest

from data_contracts.challenge.annotations import read_annotations
from data_contracts.challenge.crops import list_crops
from data_contracts.challenge.layout import find_data, subjects_of_videos
from data_contracts.video.frames import read_segment
from data_contracts.video.packets import index_video
from models.faces.mtcnn import FaceDetector
from tasks.demo.generate import DemoDataParams, generate_demo_data
from tasks.demo.people import make_performance


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return root, generate_demo_data(root, params=DemoDataParams(2, 1, 1, frames=48, crops=True))


def test_data_has_the_official_layout(generated):
    root, summary = generated
    layout = find_data(root)
    assert set(layout.test_lists) == {"expr", "va", "au", "mtl"} and "corrupt" in layout.videos
    assert subjects_of_videos(layout)["test01"] == ("test01_left", "test01_right")
    for task in ("expr", "va", "au", "mtl"):
        for set_name in ("train", "validation"):
            table = read_annotations(layout.annotations_of(task), task=task, set_name=set_name).table
            assert set(table["subject"].to_pylist()) == set(summary.subjects[set_name])
    crops = list_crops(layout.crops["cropped"]).subjects["validation01"]
    assert crops[-1].frame == 49 and 10 not in [crop.frame for crop in crops]


def test_face_is_detected_in_the_labelled_frames(generated):
    root, _ = generated
    path = root / "videos" / "train01.mp4"
    index = index_video(path)
    frames = np.concatenate([rgb for _, rgb in read_segment(path, index, first_frame=1, frame_count=48)])
    seen = np.array([len(found) > 0 for found in FaceDetector().detect(frames)])
    table = read_annotations(find_data(root).annotations_of("va"), task="va", set_name="train").table
    mine = np.array(table["subject"].to_pylist()) == "train01"
    labelled = table["valence"].is_valid().to_numpy()[mine]
    assert (seen == labelled).mean() > 0.95 and 0 < (~labelled).sum() < 20


def test_labels_match_the_performance():
    performance = make_performance(80, leaves=True, random=np.random.default_rng(0))
    labels = performance.expression_labels
    assert set(labels) == set(range(-1, 8)) and (labels[~performance.visible] == -1).all()
    happy = (labels == 4) & (performance.intensity > 0.8)
    assert (performance.action_unit_labels[happy][:, 6] == 1).all() and (
        performance.valence_arousal[happy][:, 0] > 0.5
    ).all()
