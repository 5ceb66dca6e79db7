import numpy as np
from PIL import Image

from data_contracts.challenge.pictures import Picture
from data_contracts.store.store import Store
from models.faces.crops import decode_jpeg
from models.faces.mtcnn import Detections
from tasks.pretrain.crop_pictures import compute, main_face, plan_crop_pictures
from tasks.units import run_unit


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
    ]
    (unit,) = plan_crop_pictures(pictures, collection="some")
    store = Store(tmp_path / "store")
    report = run_unit(store.url, compute, unit)
    assert report.counts == {"face": 2, "no_face": 1, "unreadable_crop": 2} and len(report.problems) == 2
    rows = store.read_unit(unit.key, store.manifests("pictures")[unit.key]).to_pylist()
    assert (rows[0]["identity"], rows[0]["expression"], rows[0]["valence"]) == ("hopper", "Happiness", 0.5)
    assert rows[0]["probability"] > 0.9 and rows[1]["probability"] is None
    assert decode_jpeg(rows[1]["crop_jpeg"]).shape == (70, 50, 3)


def test_units_depend_on_files_and_labels(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"1")
    (one,) = plan_crop_pictures([Picture(path, "x")], collection="c")
    (relabelled,) = plan_crop_pictures([Picture(path, "y")], collection="c")
    path.write_bytes(b"12")
    (changed,) = plan_crop_pictures([Picture(path, "x")], collection="c")
    assert len({one.fingerprint, relabelled.fingerprint, changed.fingerprint}) == 3
    assert len(plan_crop_pictures([Picture(path)] * 1001, collection="c")) == 3


def found(*boxes):
    count = len(boxes)
    corners = np.array(boxes, np.float32).reshape(count, 4)
    return Detections(corners, np.zeros((count, 5, 2), np.float32), np.ones(count, np.float32))


def test_main_face_is_the_central_one_unless_it_is_small():
    assert main_face(found([0, 0, 60, 60], [70, 70, 120, 120]), width_px=200, height_px=200) == 1
    assert main_face(found([0, 0, 90, 90], [95, 95, 105, 105]), width_px=200, height_px=200) == 0
    assert main_face(found(), width_px=9, height_px=9) is None
