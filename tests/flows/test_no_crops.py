"""``--no-crops``: the same faces, features within what JPEG changes, and no image of a face in the store."""

import io
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

from data_contracts.errors import InputError
from data_contracts.store.manifest import StoredUnit
from data_contracts.store.store import Store
from flows.commands.forget import forget
from flows.commands.parameters import ForgetParameters, ViewParameters
from flows.engine.run_results import SomeFailedError
from flows.extract import extract
from flows.pages.view import view
from flows.score import score
from models.faces.crops import decode_jpeg, encode_jpeg
from tasks.backbones import BackboneChoice
from tasks.demo.generate import DemoDataParams, generate_demo_data
from tasks.demo.scenes import face_patches, write_video
from tasks.extract import identify_persons
from tasks.extract.crop_faces import cut_stored_faces
from tasks.extract.embed_faces import subjects_of_source
from tasks.extract.index_videos import indexed_videos
from tasks.fit.subject_features import find_features, read_sequence
from tests.backbone_files import backbone_bytes
from tests.faults.interruption_matrix import arguments_of, read_results
from tests.faults.interruptions import interrupt

SUBJECTS = {"train01", "test01_left", "test01_right"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two videos of 24 frames, one with two people."""
    folder = tmp_path_factory.mktemp("small") / "data"
    generate_demo_data(folder, params=DemoDataParams(2, 0, 1, frames=24))
    for name in ("corrupt.mp4", "train02.avi"):
        (folder / "videos" / name).unlink()
    return folder


@pytest.fixture(scope="module")
def stores(data, tmp_path_factory, dask_address):
    """The same videos extracted without and with crops, in segments of 10 frames."""
    folder = tmp_path_factory.mktemp("stores")
    for name, crops in (("without", False), ("with", True)):
        extract(data, str(folder / name), crops=crops, segment_frames=10, dask_address=dask_address)
    return folder


def images_in(store):
    """Return the files of a store that hold an image."""
    signs = (b"\xff\xd8\xff", b"\x89PNG", b"WEBP")
    return [path for path in store.rglob("*") if path.is_file() and any(sign in path.read_bytes() for sign in signs)]


def times_of(store, *datasets):
    return {path: path.stat().st_mtime_ns for name in datasets for path in (store / name).rglob("*.parquet")}


def faces_of(store):
    units = Store(store).manifests("faces").items()
    tables = [pl.from_arrow(Store(store).read_unit(*unit)) for unit in units]
    return pl.concat(tables).drop("crop_jpeg")


def test_the_same_faces_are_stored_without_their_images(stores):
    assert images_in(stores / "with") and images_in(stores / "without") == []
    assert faces_of(stores / "without").equals(faces_of(stores / "with"))
    sources = [find_features(Store(stores / name)).source for name in ("without", "with")]
    assert sources[0].startswith("mtcnn_no_crops-") and sources[1] == "mtcnn-b3f6ef21"


def test_features_differ_only_by_jpeg(stores):
    without, store = Store(stores / "without"), Store(stores / "with")
    backbone = BackboneChoice.find("emotion_lite0", None)
    from tasks.worker_models import get_backbone

    network, video = get_backbone(backbone.name, None, backbone.precision), indexed_videos(without)["train01"]
    before, after = ([read_sequence(s, find_features(s), name) for name in sorted(SUBJECTS)] for s in (without, store))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one.present, other.present)
        np.testing.assert_allclose(one.embeddings.astype(float), other.embeddings.astype(float), atol=0.6)
        assert not np.array_equal(one.embeddings, other.embeddings)
    units = [unit for unit in without.manifests("faces").items() if unit[0].value("video") == "train01"]
    crops = [crop for unit in units for _, _, crop in cut_stored_faces(without, StoredUnit(*unit), video)]
    through_jpeg, _ = network.extract([decode_jpeg(encode_jpeg(crop)) for crop in crops])
    (known,) = (one for one, name in zip(after, sorted(SUBJECTS), strict=True) if name == "train01")
    np.testing.assert_array_equal(through_jpeg.astype(np.float16), known.embeddings[known.present])


def test_another_backbone_decodes_the_videos_again_and_says_so(data, stores, tmp_path, dask_address, capsys):
    store = shutil.copytree(stores / "without", tmp_path / "store")
    weights = tmp_path / "other.safetensors"
    weights.write_bytes(backbone_bytes())
    before = times_of(store, "faces", "subjects", "features")
    capsys.readouterr()
    extracted = extract(
        data, str(store), weights=weights, crops=False, segment_frames=10, people="all", dask_address=dask_address
    )
    assert "note: 2 videos decoded again for this backbone, because no crops are stored" in capsys.readouterr().out
    after = times_of(store, "faces", "subjects", "features")
    assert before.items() <= after.items() and extracted.complete == SUBJECTS and images_in(store) == []
    sequences = [
        read_sequence(Store(store), variant, "train01")
        for variant in (find_features(Store(store), backbone=name) for name in _backbones(store))
    ]
    # The weights differ only in their last layer.
    np.testing.assert_array_equal(sequences[0].embeddings, sequences[1].embeddings)
    assert not np.array_equal(sequences[0].logits, sequences[1].logits)


def _backbones(store):
    return sorted({key.value("backbone") for key in Store(store).manifests("features")})


def test_a_video_with_the_name_of_a_subject_of_another_video_is_refused_alone(data, tmp_path, dask_address):
    """Features are stored by subject, and two videos would replace each other's in every run."""
    copy = shutil.copytree(data, tmp_path / "data")
    shutil.copy(copy / "videos/train01.mp4", copy / "videos/test01_left.mp4")
    message = f"refuse_twins test01_left: {copy}/videos/test01_left.mp4: expected one video per name, got also"
    for crops in (False, True):
        store = str(tmp_path / f"store-{crops}")
        with pytest.raises(SomeFailedError, match=f"2 extracted, 1 failed; first: {message}"):
            extract(copy, store, crops=crops, dask_address=dask_address)
        assert set(find_features(Store(store)).subjects) == SUBJECTS


def finished_in(store):
    """Return when each finished unit of ``face_features`` was written."""
    units = Store(store).manifests("face_features").items()
    return {key: (store / key.folder / manifest.part).stat().st_mtime_ns for key, manifest in units}


def test_lost_features_are_computed_again_at_the_stored_boxes(data, stores, tmp_path, dask_address):
    """As after a worker that was killed between the faces and the features of a segment."""
    store = shutil.copytree(stores / "without", tmp_path / "store")
    before, faces = finished_in(store), times_of(store, "faces")
    lost = next(key for key in before if key.part == "00001")
    (store / lost.manifest_path).unlink()
    extract(data, str(store), crops=False, segment_frames=10, dask_address=dask_address)
    changed = {key for key, time in finished_in(store).items() if before[key] != time}
    assert changed == {lost} and times_of(store, "faces") == faces
    assert read_results(store) == read_results(stores / "without")


@pytest.mark.service
@pytest.mark.parametrize("victim", ["command", "worker"])
def test_a_killed_run_has_the_same_results_in_the_end(data, stores, tmp_path, dask_address, victim):
    store = tmp_path / "store"
    arguments = [*arguments_of("extract", data, store, workers=1), "--no-crops", "--segment-frames", "10"]
    interrupt(arguments, store, dataset="face_features", units=2, victim=victim)
    before = finished_in(store)
    extract(data, str(store), crops=False, segment_frames=10, dask_address=dask_address)
    assert len(before) >= 2 and before.items() <= finished_in(store).items()
    assert read_results(store) == read_results(stores / "without")


def test_score_uses_stored_crops_and_stores_none_of_new_videos(data, tmp_path, dask_address, capsys):
    store, out, videos = tmp_path / "store", tmp_path / "out", data / "videos"
    extract(data, str(store), limit=1, dask_address=dask_address)
    before = times_of(store, "faces")
    capsys.readouterr()
    for people in ("all", "main"):
        score([videos], out, str(store), people=people, dask_address=dask_address)
        printed = capsys.readouterr().out
        assert "note: 1 video: the crops that the store has are used" in printed
        assert "2 videos: 2 scored" in printed and "other heads or settings" not in printed
        assert times_of(store, "faces").items() >= before.items()
        assert {path.parent.name for path in times_of(store, "faces")} == {"video=test01", "video=train01"}
        assert all("=test01" in str(path) for path in images_in(store))
    score([videos], out, str(store), people="main", dask_address=dask_address)
    assert "2 videos: 2 up to date" in capsys.readouterr().out
    score([videos], out, str(store), people="main", crops=True, dask_address=dask_address)
    assert {"=train01" in str(path) for path in images_in(store)} == {True, False}
    assert "2 videos: 1 up to date, 1 scored" in capsys.readouterr().out


def test_persons_and_thumbnails_come_from_the_video(data, tmp_path, dask_address, capsys):
    out, video = tmp_path / "out", tmp_path / "clip.mp4"
    shutil.copy(data / "videos/test01.mp4", video)
    score([video], out, dask_address=dask_address)
    assert images_in(out) == []
    with pytest.raises(InputError, match="only those of persons that score wrote; run extract --no-crops"):
        find_features(Store(out / "store"))
    rows = pl.read_parquet(out / "clip.parquet").filter("has_face")
    assert set(rows["person"]) == {1, 2} and rows["expression"].null_count() == 0
    page = out / "store/reports/viewers/clip/index.html"
    assert view(ViewParameters(["clip"], out=str(out))) == 0 and page.read_text().count("data:image/jpeg") == 2
    video.unlink()
    capsys.readouterr()
    assert view(ViewParameters(["clip"], out=str(out))) == 0 and "data:image/jpeg" not in page.read_text()
    assert "clip: no thumbnails: " in capsys.readouterr().err
    assert forget(ForgetParameters(("clip",), str(out / "store"))) == 0
    assert not [path for path in out.rglob("*.parquet") if "video=clip" in str(path)]


def test_persons_are_the_same_if_their_faces_are_cut_out_of_the_video_again(tmp_path, dask_address):
    """As with another backbone, whose features do not compare faces."""
    face = Image.fromarray(face_patches()[0].astype(np.uint8)).resize((120, 120))
    shown = Image.new("RGB", (240, 180), (128, 120, 110))
    shown.paste(face, (60, 30))
    empty = np.full((180, 240, 3), 128, np.uint8)
    write_video(tmp_path / "clip.mp4", [np.asarray(shown) if at < 5 or at > 47 else empty for at in range(56)])
    score([tmp_path / "clip.mp4"], tmp_path / "out", dask_address=dask_address)
    store = Store(tmp_path / "out/store")
    source = next(iter(store.manifests("faces"))).value("source")
    (unit,) = identify_persons.plan_identify_persons(store, subjects_of_source(store, source), source=source)
    again = replace(unit, arguments=replace(unit.arguments, vectors=()))
    products = [identify_persons.compute(store, one) for one in (unit, again)]
    tables = [pa.concat_tables(one.tables) for one in products]
    assert unit.arguments.vectors and tables[0].equals(tables[1])
    assert [one.counts["joined over a cut or gap"] for one in products] == [1, 1]


def test_photos_leave_no_image_and_stored_crops_are_used(portraits, tmp_path, dask_address, capsys):
    photos, store, out = tmp_path / "photos", str(tmp_path / "store"), tmp_path / "out"
    photos.mkdir()
    Image.fromarray(portraits[0]).save(photos / "a.png")
    score([photos], out, store, crops=True, dask_address=dask_address)
    with_crops = pl.read_parquet(out / "tables/images.parquet")
    Image.fromarray(portraits[1]).save(photos / "b.png")
    capsys.readouterr()
    score([photos], out, store, dask_address=dask_address)
    printed = capsys.readouterr().out
    assert "note: 1 image: the crops that the store has are used" in printed and "1 up to date, 1 scored" in printed
    assert len(images_in(tmp_path / "store")) == 1

    none = tmp_path / "none"
    score([photos], none, dask_address=dask_address)
    assert images_in(none) == []
    rows = pl.read_parquet(none / "tables/images.parquet")
    boxes = [name for name in rows.columns if name.endswith("_px")]
    assert rows.select(boxes)[0].equals(with_crops.select(boxes)[0])
    assert abs(rows["p_happiness"][0] - with_crops["p_happiness"][0]) < 0.1
    (tmp_path / "w.safetensors").write_bytes(backbone_bytes())
    before = times_of(none / "store", "image_faces")
    score([photos], none, weights=tmp_path / "w.safetensors", dask_address=dask_address)
    assert times_of(none / "store", "image_faces") == before and images_in(none) == []


def test_official_crops_cannot_be_left_out(portraits, tmp_path):
    crops = tmp_path / "data/cropped/clip"
    crops.mkdir(parents=True)
    buffer = io.BytesIO()
    Image.fromarray(portraits[0]).save(buffer, "JPEG")
    (crops / "00001.jpg").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="--no-crops: source cropped consists of crops; leave out the option"):
        extract(tmp_path / "data", str(tmp_path / "store"), crops=False)
