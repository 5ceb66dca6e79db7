"""Official crops are stored as displayed."""

import io

import numpy as np
from PIL import ExifTags, Image

from data_contracts.challenge.crops import Crop
from data_contracts.files.inputs import file_state
from data_contracts.store.store import Store
from models.faces.crops import decode_jpeg
from tasks.extract.import_crops import compute, plan_import_crops
from tasks.units import run_unit, split_pending
from tests.unopened import not_openable


def test_crops_are_stored_as_displayed_and_plain_jpeg_files_unchanged(tmp_path):
    grey = np.linspace(0, 255, 24 * 16).astype(np.uint8).reshape(16, 24)
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "camera"
    Image.fromarray(grey).save(tmp_path / "1.jpg", exif=exif)
    exif[ExifTags.Base.Orientation] = 8
    Image.fromarray(grey).save(tmp_path / "2.jpg", exif=exif, quality=95)
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "3.png")
    paths = [tmp_path / name for name in ("1.jpg", "2.jpg", "3.png")]
    crops = [Crop(frame, str(path), file_state(path)) for frame, path in enumerate(paths, start=1)]
    (unit,) = plan_import_crops({"a": crops}, name="cropped", frame_counts={})
    store = Store(tmp_path / "store")
    assert run_unit(store.url, compute, unit).counts == {"face": 3}
    plain, turned, wide = store.read_unit(unit.key, store.manifests("faces")[unit.key])["crop_jpeg"].to_pylist()
    assert plain == paths[0].read_bytes()
    np.testing.assert_allclose(decode_jpeg(turned)[..., 0].astype(int), np.rot90(grey), atol=8)
    np.testing.assert_allclose(decode_jpeg(wide)[..., 0].astype(int), grey, atol=8)
    with Image.open(io.BytesIO(turned)) as image:
        assert ExifTags.Base.Orientation not in image.getexif()


def test_a_crop_that_cannot_be_opened_for_a_while_is_tried_again(tmp_path):
    path, store = tmp_path / "00001.jpg", Store(tmp_path / "store")
    Image.new("RGB", (8, 8)).save(path)
    crops = {"a": [Crop(1, str(path), file_state(path))]}
    (unit,) = plan_import_crops(crops, name="cropped", frame_counts={})
    with not_openable(path):
        assert run_unit(store.url, compute, unit).counts == {"unreadable_crop": 1}
    (again,) = split_pending(store, [unit]).todo
    assert run_unit(store.url, compute, again).counts == {"face": 1}
    assert split_pending(store, [unit]).todo == []
