"""Blocks of images without stored crops, after images were replaced or deleted; and what forget finds of an image."""

import os
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_contracts.schemas.predictions import IMAGES
from data_contracts.store.manifest import Failure, UnitKey
from data_contracts.store.store import Store
from tasks.backbones import BackboneChoice
from tasks.extract.crop_faces import crop_params
from tasks.images import embed_images
from tasks.images.forget_images import find_image_traces, known_images, remove_image, resolve_image
from tasks.images.image_faces import plan_image_faces
from tasks.images.write_images import images_in
from tasks.units import run_unit, split_pending
from tests.backbone_files import backbone_bytes

PARAMS = crop_params(min_face_px=20, exact=True, keep_crops=False)


@pytest.fixture
def photos(portraits, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, portrait in zip("ab", portraits, strict=False):
        Image.fromarray(portrait).save(folder / f"{name}.png")
    return [folder / "a.png", folder / "b.png"]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def embed(store, photos, weights=None):
    """Compute missing features; return the reports of the blocks that were computed."""
    planned = plan_image_faces(store, {str(photo): photo for photo in photos}, PARAMS)
    units = embed_images.plan_embed_images(store, planned.units, BackboneChoice.find("emotion_lite0", weights))
    return [run_unit(store.url, embed_images.compute, unit) for unit in split_pending(store, units).todo]


def embedded(store):
    """Return the images with features, for each backbone in the order of their names."""
    units = store.manifests("image_features").items()
    found = {}
    for key, manifest in units:
        images = set(store.read_unit(key, manifest)["image"].to_pylist())
        found.setdefault(key.value("backbone"), set()).update(os.path.basename(one) for one in images)
    return found


def test_an_image_that_was_replaced_by_a_smaller_one_does_not_stop_its_block(store, photos, portraits, tmp_path):
    (first,) = embed(store, photos)
    assert (first.cause, first.problems) == (None, ())
    Image.fromarray(portraits[0]).resize((24, 24)).save(photos[0])
    weights = tmp_path / "other.safetensors"
    weights.write_bytes(backbone_bytes())
    (second,) = embed(store, photos[1:], weights)
    (problem,) = second.problems
    assert second.cause is None and problem.startswith(f"{photos[0]}: expected the image as it was")
    photos[0].unlink()
    assert [embed(store, photos[1:], weights), sorted(map(sorted, embedded(store).values()))] == [
        [],
        [["a.png", "b.png"], ["b.png"]],
    ]


def test_blocks_with_other_contents_of_an_image_do_not_hide_the_block_with_its_own(store, photos, portraits):
    contents = [photos[0].read_bytes(), photos[1].read_bytes()]
    for content in contents:
        photos[0].write_bytes(content)
        assert len(embed(store, photos)) == 1
    for number, content in enumerate(contents):
        photos[0].write_bytes(content)
        os.utime(photos[0], (number, number))
        assert embed(store, photos) == [], "both contents are known, whatever the names of their blocks"


def test_a_file_that_cannot_be_opened_for_a_while_is_read_by_the_next_run(store, photos):
    """Its content is known from the listing, and would be stored as unreadable for good."""
    planned = plan_image_faces(store, {str(photo): photo for photo in photos}, PARAMS)
    (unit,) = embed_images.plan_embed_images(store, planned.units, BackboneChoice.find("emotion_lite0", None))
    content, state = photos[0].read_bytes(), photos[0].stat()
    photos[0].unlink()
    photos[0].mkdir()
    report = run_unit(store.url, embed_images.compute, unit)
    assert report.cause.startswith(f"{photos[0]}: expected the image that was listed, got") and report.fault == "other"
    assert store.manifests("image_faces") == {}
    photos[0].rmdir()
    photos[0].write_bytes(content)
    os.utime(photos[0], ns=(state.st_atime_ns, state.st_mtime_ns))
    (again,) = embed(store, photos)
    assert (again.cause, again.problems, again.counts) == (None, (), {"face": 2})


def table_of(*images):
    rows = [{"image": image, "face": 1, "width_px": 8, "height_px": 8} for image in images]
    return pa.Table.from_pylist(rows, schema=IMAGES.schema)


@pytest.mark.parametrize("damage", ["metadata", "columns", "bytes"])
def test_forget_finds_images_in_edited_tables_and_notes_of_failures(store, tmp_path, damage):
    image, other = str(tmp_path / "a.png"), str(tmp_path / "b.png")
    out, table = Store(tmp_path / "out"), table_of(image, other)
    (tmp_path / "out/tables").mkdir(parents=True)
    file = tmp_path / "out/tables/images.parquet"
    pq.write_table(table.drop_columns("face") if damage == "columns" else table, file)
    if damage == "bytes":
        file.write_bytes(file.read_bytes()[:-8])
    key = UnitKey("image_features", (("backbone", "x-1"), ("source", "mtcnn-1"), ("block", "0123")))
    store.note_failure(key, Failure("f" * 64, cause="out of memory", files=(image, str(tmp_path / "w.safetensors"))))
    assert known_images(store, [out]) >= {image} and str(tmp_path / "w.safetensors") not in known_images(store, [out])
    traces = find_image_traces(store, image, [out])
    assert [len(traces.folders), len(traces.unread)] == ([1, 0] if damage == "metadata" else [0, 1])
    remove_image(store, traces)
    assert images_in(out) == ({other} if damage == "metadata" else set())
    left = [path for path in tmp_path.rglob("*") if path.is_file() and image.encode() in path.read_bytes()]
    assert left == []


def test_names_of_images_are_found_in_every_unicode_form():
    name = unicodedata.normalize("NFD", "caf\xe9.png")
    assert resolve_image("caf\xe9.png", {f"/photos/{name}"}) == f"/photos/{name}"
    assert resolve_image("cafe.png", {f"/photos/{name}"}) is None


def test_rows_of_features_are_those_of_the_faces(store, photos):
    embed(store, photos)
    ((faces, manifest),) = store.manifests("image_faces").items()
    ((features, own),) = store.manifests("image_features").items()
    tables = store.read_unit(faces, manifest), store.read_unit(features, own)
    keys = [list(zip(one["image"].to_pylist(), one["face"].to_pylist(), strict=True)) for one in tables]
    assert keys[0] == keys[1] == [(str(photo), 1) for photo in photos]
    assert np.isfinite(tables[1]["logits"].combine_chunks().flatten().to_numpy()).all()
