"""Every person of a crowd in the predictions: generated faces that cross each other, and a cut."""

import os

import numpy as np
import polars as pl
import pytest
from PIL import Image

from data_contracts.errors import InputError
from data_contracts.store.store import Store
from flows.commands.forget import forget
from flows.commands.parameters import ForgetParameters
from flows.extract import extract
from flows.rescore import rescore
from tasks.demo.scenes import face_patches, write_video

FRAMES, CUT = 36, 24
OTHERS = {"other_features", "persons", "person_outputs"}
OF_ALL = {"persons", "person_outputs"}


def crowd_frames():
    """Yield frames with three faces: two change places while one stands below; after the cut, that one stays."""
    faces = [Image.fromarray(patch.astype(np.uint8)) for patch in face_patches()]
    for at in range(FRAMES):
        frame = Image.new("RGB", (320, 240), (128, 120, 110) if at < CUT else (90, 100, 120))
        if at < CUT:
            walked = round(200 * at / CUT)
            frame.paste(faces[1].resize((84, 84)), (230 - walked, 12))
            frame.paste(faces[0].resize((96, 96)), (4 + walked, 4))
        frame.paste(faces[1].resize((110, 110)), (100, 120))
        yield np.asarray(frame)


@pytest.fixture(scope="module")
def scored(tmp_path_factory, dask_address):
    """A folder with the videos ``crowd`` and ``wall``, scored with the subject alone."""
    folder = tmp_path_factory.mktemp("crowd")
    (folder / "videos").mkdir()
    write_video(folder / "videos/crowd.mp4", crowd_frames())
    write_video(folder / "videos/wall.mp4", (np.full((240, 320, 3), 128, np.uint8) for _ in range(3)))
    for path in (folder / "videos").iterdir():
        os.utime(path, (1_700_000_000,) * 2)
    rescore([folder / "videos"], str(folder / "store"), folder / "out", people="main", dask_address=dask_address)
    return folder


def read_faces(store):
    """Return frame and box of every detected face of the crowd."""
    columns = ["frame", "status", "box_x1_px", "box_y1_px", "box_x2_px", "box_y2_px"]
    (unit,) = [unit for unit in store.manifests("faces").items() if unit[0].value("video") == "crowd"]
    return pl.from_arrow(store.read_unit(*unit, columns=columns)).filter(pl.col("status") == "face").drop("status")


def times_of(store):
    paths = (path for path in store.rglob("*.parquet") if path.is_file())
    return {path.relative_to(store): path.stat().st_mtime_ns for path in paths}


def test_every_face_is_predicted_once_and_no_video_is_decoded_again(scored, dask_address, capsys):
    store, out = Store(scored / "store"), scored / "out"
    subject, before = pl.read_parquet(out / "crowd.parquet"), times_of(scored / "store")
    faces = read_faces(store)
    assert set(subject["person"]) == {1} and len(subject) == FRAMES and subject["has_face"].sum() < len(faces)

    done = rescore([scored / "videos"], store.url, out, dask_address=dask_address)
    assert done.scored == ("crowd", "wall")
    after = times_of(scored / "store")
    assert {path: after[path] for path in before} == before
    assert {path.parts[0] for path in after.keys() - before.keys()} == OF_ALL

    rows = pl.read_parquet(out / "crowd.parquet")
    seen = rows.filter("has_face")
    assert not seen.select("person", "frame").is_duplicated().any()
    assert seen.select(faces.columns).sort("frame", "box_x1_px").equals(faces.sort("frame", "box_x1_px"))
    assert len(faces) >= 2.5 * CUT, "three faces are found in most frames before the cut"
    assert set(rows["frame"]) == set(range(1, FRAMES + 1)) and rows["time_seconds"].null_count() == 0
    assert rows.sort("person", "frame", nulls_last=True).equals(rows)
    assert seen["expression"].null_count() == 0 and rows.filter(~pl.col("has_face"))["expression"].null_count() == (
        len(rows) - len(seen)
    )
    spans = (
        rows.drop_nulls("person")
        .group_by("person")
        .agg(
            pl.col("frame").first().alias("first"),
            pl.col("frame").last().alias("last"),
            pl.len(),
            pl.col("has_face").sum(),
        )
    )
    assert (spans["len"] == spans["last"] - spans["first"] + 1).all()
    assert spans.sort("person")["first"].is_sorted() and spans["person"].min() == 1
    stays = spans.filter(pl.col("first") == 1, pl.col("last") == FRAMES)
    assert len(stays) == 1, "the face that stays through the cut is one person"
    short = rows.group_by("person").agg(pl.col("has_face").sum() < 25, pl.col("is_short_track").first())
    assert short["has_face"].to_list() == short["is_short_track"].to_list()
    empty = pl.read_parquet(out / "wall.parquet")
    assert empty["person"].null_count() == len(empty) == 3 and not empty["has_face"].any()

    assert rescore([scored / "videos"], store.url, out, dask_address=dask_address).up_to_date == ("crowd", "wall")
    assert times_of(scored / "store") == after
    alone = rescore([scored / "videos"], store.url, out, people="main", dask_address=dask_address)
    assert alone.scored == ("crowd", "wall") and times_of(scored / "store") == after
    assert pl.read_parquet(out / "crowd.parquet").equals(subject)

    assert forget(ForgetParameters(("crowd",), store.url)) == 0
    assert not [path for path in times_of(scored / "store") if "crowd" in str(path)]
    assert {path.parts[0] for path in times_of(scored / "store")} >= {"persons", "person_outputs"}


def test_extract_stores_everyone_on_request(scored, tmp_path, dask_address):
    store = str(tmp_path / "store")
    extract(scored / "videos", store, dask_address=dask_address)
    assert not {path.parts[0] for path in times_of(tmp_path / "store")} & OTHERS
    extract(scored / "videos", store, people="all", dask_address=dask_address)
    assert {path.parts[0] for path in times_of(tmp_path / "store")} & OTHERS == OTHERS - {"person_outputs"}


def test_official_crops_have_no_other_people(tmp_path, portraits):
    (tmp_path / "data" / "cropped" / "clip").mkdir(parents=True)
    Image.fromarray(portraits[0]).save(tmp_path / "data" / "cropped" / "clip" / "00001.jpg")
    with pytest.raises(InputError, match="--people all: the crops of source cropped show only subjects"):
        extract(tmp_path / "data", str(tmp_path / "store"), people="all")
