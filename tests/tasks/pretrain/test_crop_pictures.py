import os
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from data_contracts.challenge.pictures import Picture
from data_contracts.details.records import Details
from data_contracts.store.store import Store
from models.faces.crops import decode_jpeg
from models.faces.mtcnn import Detections
from tasks.pretrain import crop_pictures
from tasks.pretrain.crop_pictures import compute, main_face, plan_crop_pictures
from tasks.units import run_unit, split_pending
from tests.unopened import not_openable


def test_photos_without_a_usable_face_are_counted(tmp_path, portraits):
    Image.fromarray(portraits[0]).save(tmp_path / "a.jpg")
    Image.fromarray(np.full((80, 80, 3), 90, np.uint8)).save(tmp_path / "grey.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    pictures = [
        Picture(tmp_path / "a.jpg", "hopper", "Happiness", (0.5, 0.1)),
        Picture(tmp_path / "a.jpg", box_xyxy_px=(10, 20, 60, 90)),
        Picture(tmp_path / "grey.png"),
        Picture(tmp_path / "broken.jpg"),
        Picture(tmp_path / "gone.jpg"),
        Picture(tmp_path / "pipe.jpg"),
    ]
    os.mkfifo(tmp_path / "pipe.jpg")
    (unit,) = plan_crop_pictures(pictures, collection="some", known={})
    store = Store(tmp_path / "store")
    report = run_unit(store.url, compute, unit)
    assert report.counts == {"face": 2, "no_face": 1, "unreadable_crop": 3} and len(report.problems) == 3
    assert any("gone.jpg: expected a picture" in line and "found: nothing there" in line for line in report.problems)
    rows = store.read_unit(unit.key, store.manifests("pictures")[unit.key]).to_pylist()
    assert (rows[0]["identity"], rows[0]["expression"], rows[0]["valence"]) == ("hopper", "Happiness", 0.5)
    assert rows[0]["probability"] > 0.9 and rows[1]["probability"] is None
    assert decode_jpeg(rows[1]["crop_jpeg"]).shape == (70, 50, 3)


def test_a_photo_whose_path_is_not_utf8_is_cropped(tmp_path, portraits):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")
    with open(path, "wb") as file:
        Image.fromarray(portraits[0]).save(file, "JPEG")
    (unit,) = plan_crop_pictures([Picture(Path(path))], collection="c", known={})
    store = Store(tmp_path / "store")
    assert run_unit(store.url, compute, unit).counts == {"face": 1}
    rows = store.read_unit(unit.key, manifest_of(store, unit)).to_pylist()
    assert rows[0]["picture"] == f"{tmp_path}/caf\\udce9.jpg"


def test_a_photo_that_cannot_be_opened_for_a_while_is_tried_again(tmp_path, portraits):
    """Its state is known from the listing, and would be unreadable for good; photos that do not exist are not tried."""
    store, photo = Store(tmp_path / "store"), tmp_path / "a.jpg"
    pictures = [Picture(photo), Picture(tmp_path / "gone.jpg")]
    Image.fromarray(portraits[0]).save(photo)

    def pending():
        units = plan_crop_pictures(pictures, collection="c", known=store.manifests("pictures"))
        return split_pending(store, units).todo

    (unit,) = pending()
    with not_openable(photo):
        report = run_unit(store.url, compute, unit)
        assert report.counts == {"unreadable_crop": 2} and "found: Is a directory; skipped" in report.problems[0]
    before = manifest_of(store, unit).identity
    (again,) = pending()
    assert run_unit(store.url, compute, again).counts == {"face": 1, "unreadable_crop": 1}
    assert manifest_of(store, unit).identity == unit.fingerprint != before, "backbones are trained again"
    assert pending() == []


def test_units_depend_on_files_and_labels(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"1")
    (one,) = plan_crop_pictures([Picture(path, "x")], collection="c", known={})
    (relabelled,) = plan_crop_pictures([Picture(path, "y")], collection="c", known={})
    path.write_bytes(b"12")
    (changed,) = plan_crop_pictures([Picture(path, "x")], collection="c", known={})
    assert len({one.fingerprint, relabelled.fingerprint, changed.fingerprint}) == 3
    assert len(plan_crop_pictures([Picture(path)] * 1001, collection="c", known={})) == 3


def found(*boxes):
    count = len(boxes)
    corners = np.array(boxes, np.float32).reshape(count, 4)
    return Detections(corners, np.zeros((count, 5, 2), np.float32), np.ones(count, np.float32))


def test_main_face_is_the_central_one_unless_it_is_small():
    assert main_face(found([0, 0, 60, 60], [70, 70, 120, 120]), width_px=200, height_px=200) == 1
    assert main_face(found([0, 0, 90, 90], [95, 95, 105, 105]), width_px=200, height_px=200) == 0
    assert main_face(found(), width_px=9, height_px=9) is None


def turned(portrait, path):
    """Write a portrait that EXIF data turn upright."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(np.rot90(portrait)).save(path, exif=exif, quality=95)
    return Picture(path)


def test_photos_are_cropped_as_displayed(tmp_path, portraits):
    """A turned JPEG and a 16-bit PNG show the face of the plain photo."""
    Image.fromarray(portraits[0]).save(tmp_path / "plain.png")
    grey = np.asarray(Image.fromarray(portraits[0]).convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "grey16.png")
    Image.fromarray(portraits[0]).convert("CMYK").save(tmp_path / "print.tif")
    others = [Picture(tmp_path / name) for name in ("plain.png", "grey16.png", "print.tif")]
    (unit,) = plan_crop_pictures([*others, turned(portraits[0], tmp_path / "t.jpg")], collection="c", known={})
    store = Store(tmp_path / "store")
    assert run_unit(store.url, compute, unit).counts == {"face": 4}
    rows = store.read_unit(unit.key, store.manifests("pictures")[unit.key]).to_pylist()
    boxes = np.array([[row[f"box_{side}_px"] for side in ("x1", "y1", "x2", "y2")] for row in rows])
    assert np.abs(boxes - boxes[0]).max() < 0.1 * (boxes[0, 2] - boxes[0, 0])


def manifest_of(store, unit):
    return store.manifests("pictures")[unit.key]


def test_only_old_units_with_turned_photos_are_cropped_again(tmp_path, portraits, monkeypatch):
    Image.fromarray(portraits[0]).save(tmp_path / "plain.jpg")
    lists = {"plain": [Picture(tmp_path / "plain.jpg")], "turned": [turned(portraits[0], tmp_path / "t.jpg")]}
    store = Store(tmp_path / "store")

    def plan(name):
        (unit,) = plan_crop_pictures(lists[name], collection=name, known=store.manifests("pictures"))
        return unit

    with monkeypatch.context() as before:
        before.setattr(crop_pictures, "PicturesDetails", lambda **_: Details())
        before.setattr(crop_pictures, "_is_plain", lambda _: True)
        old = {name: plan(name) for name in lists}
        for unit in old.values():
            run_unit(store.url, compute, unit)
        assert all(manifest_of(store, unit).identity == unit.fingerprint for unit in old.values())

    assert plan("plain").fingerprint == old["plain"].fingerprint
    again = plan("turned")
    assert again.fingerprint != old["turned"].fingerprint
    run_unit(store.url, compute, again)
    assert manifest_of(store, again).identity != old["turned"].fingerprint
    assert plan("turned").fingerprint == again.fingerprint


def test_photos_of_new_units_are_not_opened_to_plan(tmp_path, portraits, monkeypatch):
    store, photos = Store(tmp_path / "store"), [turned(portraits[0], tmp_path / "t.jpg")]
    (unit,) = plan_crop_pictures(photos, collection="c", known={})
    run_unit(store.url, compute, unit)
    assert manifest_of(store, unit).identity != unit.fingerprint
    monkeypatch.setattr(crop_pictures, "_is_plain", lambda path: pytest.fail(f"opened {path}"))
    (same,) = plan_crop_pictures(photos, collection="c", known=store.manifests("pictures"))
    assert same.fingerprint == unit.fingerprint
