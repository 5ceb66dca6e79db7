"""Faces are found, measured and assigned in the displayed frame, whatever the stored frame looks like."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from data_contracts.store.store import Store
from models.faces.tracking import TrackingParams
from tasks.extract import assign_subjects, crop_faces, index_videos
from tasks.units import run_unit
from tests.video_factory import VideoSpec, write_video

WIDTH_PX, HEIGHT_PX = 256, 160
SPEC = VideoSpec(frame_count=3, b_frames=0, codec_options={"crf": "10"})


@pytest.fixture(scope="module")
def scene(portraits):
    """Two people side by side, uint8 [160, 256, 3]; the left half is darker."""
    halves = [Image.fromarray(one).resize((WIDTH_PX // 2, HEIGHT_PX)) for one in portraits]
    return np.concatenate([np.asarray(halves[0]) // 2, np.asarray(halves[1])], axis=1)


def extract(tmp_path, spec, name="two"):
    """Return the boxes of the subjects, (left, right) [4] each, and the details of the video."""
    path, store = write_video(tmp_path / f"{name}.mp4", spec), Store(tmp_path / name)
    (unit,) = index_videos.plan_index_videos({name: path})
    assert run_unit(store.url, index_videos.compute, unit).cause is None
    videos = index_videos.indexed_videos(store)
    params = crop_faces.crop_params(min_face_px=30, exact=True)
    units = crop_faces.plan_crop_faces(videos, params=params)
    assert run_unit(store.url, crop_faces.compute, units[0]).cause is None
    (assigned,) = assign_subjects.plan_assign_subjects(
        crop_faces.cropped_videos(store, units),
        source=crop_faces.source_of(params),
        subjects={name: (f"{name}_left", f"{name}_right")},
        params=TrackingParams(),
    )
    assert run_unit(store.url, assign_subjects.compute, assigned).cause is None
    faces = store.read_unit(units[0].key, store.manifests("faces")[units[0].key]).to_pylist()
    subjects = store.read_unit(assigned.key, store.manifests("subjects")[assigned.key]).to_pylist()
    boxes = {(row["frame"], row["face"]): [row[f"box_{side}_px"] for side in ("x1", "y1", "x2", "y2")] for row in faces}
    named = {row["subject"]: np.array(boxes[row["frame"], row["face"]]) for row in subjects if row["frame"] == 2}
    return (named[f"{name}_left"], named[f"{name}_right"]), videos[name].details


@pytest.fixture(scope="module")
def upright(scene, tmp_path_factory):
    spec = replace(SPEC, width_px=WIDTH_PX, height_px=HEIGHT_PX, picture=scene)
    boxes, details = extract(tmp_path_factory.mktemp("upright"), spec)
    assert details.display is None
    return boxes


@pytest.mark.parametrize(("degrees", "mirrored"), [(0, True), (90, True), (180, True), (270, False)])
def test_left_and_right_are_those_of_the_displayed_frame(scene, upright, degrees, mirrored, tmp_path):
    stored = np.rot90(scene[:, ::-1] if mirrored else scene, -degrees // 90)
    height_px, width_px = stored.shape[:2]
    spec = replace(SPEC, width_px=width_px, height_px=height_px, picture=np.ascontiguousarray(stored))
    boxes, details = extract(tmp_path, replace(spec, rotation_degrees_ccw=degrees, mirrored=mirrored))
    assert details.width_px == WIDTH_PX and details.display == ("mirrored" if mirrored else None)
    np.testing.assert_allclose(boxes, upright, atol=4)


def test_faces_have_their_real_proportions(scene, upright, tmp_path):
    stored = np.asarray(Image.fromarray(scene).resize((WIDTH_PX // 2, HEIGHT_PX)))
    spec = replace(SPEC, width_px=WIDTH_PX // 2, height_px=HEIGHT_PX, picture=stored, aspect=Fraction(2))
    boxes, details = extract(tmp_path, spec)
    assert details.width_px == WIDTH_PX
    np.testing.assert_allclose(boxes, upright, atol=8)


def test_only_videos_with_a_new_transform_have_a_new_identity(tmp_path):
    """Results of other videos in existing stores are not computed again."""
    identities = {}
    for name, spec in {
        "plain": SPEC,
        "rotated": replace(SPEC, rotation_degrees_ccw=90),
        "mirrored": replace(SPEC, mirrored=True),
        "almost_square": replace(SPEC, aspect=Fraction(1000, 1001)),
        "wide": replace(SPEC, aspect=Fraction(4, 3)),
    }.items():
        path, store = write_video(tmp_path / f"{name}.mp4", spec), Store(tmp_path / "store")
        (unit,) = index_videos.plan_index_videos({name: path})
        run_unit(store.url, index_videos.compute, unit)
        row = store.read_unit(unit.key, store.manifests("videos")[unit.key]).to_pylist()[0]
        identities[name] = store.manifests("videos")[unit.key].identity == row["sha256"]
    assert [name for name, is_kept in identities.items() if is_kept] == ["plain", "rotated", "almost_square"]
