"""Viewers of the demo's videos: their data, their files, and what forget leaves of them."""

import base64
import json
import re
import shutil

import numpy as np
import polars as pl
import pytest

from data_contracts.errors import InputError
from data_contracts.vocabulary import ACTION_UNITS, EXPRESSIONS
from flows.commands.forget import forget
from flows.commands.parameters import ForgetParameters, ViewParameters
from flows.pages.view import view
from flows.score import score
from tests.video_factory import VideoSpec, write_video

KINDS = {"seen": "u1", "boxes": "<i2", "seconds": "<u4", "expr": "u1", "au": "<u2", "va": "<i2"}


def decode(text, kind):
    return np.frombuffer(base64.b64decode(text), KINDS[kind])


def read_data(page):
    """Return the data of a viewer."""
    return json.loads(re.search(r'<script type="application/json" id="timeline-data">(.*?)</script>', page).group(1))


def parquet(folder):
    return pl.concat([pl.read_parquet(path) for path in sorted(folder.rglob("*.parquet"))]).sort("frame")


@pytest.fixture(scope="module")
def viewed(demo, tmp_path_factory):
    """A copy of the demo's store with the viewers of four videos."""
    store = tmp_path_factory.mktemp("viewed") / "store"
    shutil.copytree(demo.store, store)
    assert view(ViewParameters(["validation02", "train08.mp4", "train02", "test01"], store=str(store))) == 0
    return store


def page_of(store, video):
    return (store / "reports/viewers" / video / "index.html").read_text()


def test_a_viewer_shows_outputs_before_and_after_smoothing_and_labels(viewed, demo):
    data = read_data(page_of(viewed, "validation02"))
    (person,) = data["persons"]
    assert data["frames"] == 48 and data["expressions"] == list(EXPRESSIONS) and data["units"] == list(ACTION_UNITS)
    np.testing.assert_array_equal(decode(data["seconds"], "seconds"), np.arange(48) * 400)
    outputs = {
        branch: parquet(next(viewed.glob(f"outputs/head={branch}-default-*/source=*/subject=validation02")))
        for branch in ("expr", "va", "au")
    }
    seen = outputs["va"]["has_face"].to_numpy()
    np.testing.assert_array_equal(decode(person["seen"], "seen"), seen)
    for part, column in enumerate(("valence_value", "arousal_value")):
        raw = decode(person["raw"]["va"][part], "va")
        expected = outputs["va"][column].clip(-1, 1).fill_null(-32768 / 32767).to_numpy() * 32767
        np.testing.assert_allclose(raw, expected, atol=1)
        assert not np.array_equal(raw, decode(person["smoothed"]["va"][part], "va"))
    p = decode(person["raw"]["expr"]["p"], "expr").reshape(len(EXPRESSIONS), -1)[:, seen].T / 255
    names = [f"p_{name.lower()}" for name in EXPRESSIONS]
    np.testing.assert_allclose(p, outputs["expr"].filter("has_face").select(names).to_numpy(), atol=1 / 255)
    (path,) = demo.data.glob("*/EXPR_*/Validation_Set/validation02.txt")
    labels = np.loadtxt(path, skiprows=1, dtype=int)
    labelled = decode(person["labels"]["expr"]["decided"], "expr")
    np.testing.assert_array_equal(labelled, np.where(labels < 0, 255, labels))
    boxes = decode(person["boxes"], "boxes").reshape(-1, 4)
    assert (boxes[seen, 2] > boxes[seen, 0]).all() and (boxes[~seen] == -32768).all()
    assert person["strip"]["frames"][0] == np.flatnonzero(seen)[0] + 1


def test_both_subjects_of_a_video_are_persons(viewed):
    data = read_data(page_of(viewed, "train08"))
    assert [one["title"].split(", ")[-1] for one in data["persons"]] == ["train08_left", "train08_right"]
    left, right = (decode(one["boxes"], "boxes").reshape(-1, 4)[:, 0] for one in data["persons"])
    known = (left > -32768) & (right > -32768)
    assert known.any() and (left[known] < right[known]).all()


def test_predictions_are_shown_with_the_values_before_smoothing_from_the_store(
    viewed, demo, tmp_path, dask_address, capsys
):
    video, out = demo.data / "videos/test01.mp4", tmp_path / "out"
    score([video, write_video(tmp_path / "blank.mp4", VideoSpec(4))], out, str(viewed), dask_address=dask_address)
    assert view(ViewParameters(["blank"], out=str(out), store=str(viewed))) == 1
    assert view(ViewParameters([], out=str(out), store=str(viewed))) == 0
    assert capsys.readouterr().out.count("blank: no viewer, because no face was found in the video") == 2
    data, table = read_data(page_of(viewed, "test01")), pl.read_parquet(out / "test01.parquet")
    assert [one["number"] for one in data["persons"]] == table["person"].drop_nulls().unique().sort().to_list()
    table = table.filter(pl.col("person") == 1)
    person = data["persons"][0]
    expected = table["valence"].fill_null(-32768 / 32767).to_numpy() * 32767
    np.testing.assert_allclose(decode(person["smoothed"]["va"][0], "va"), expected, atol=1)
    kinds = decode(person["smoothed"]["expr"]["decided"], "expr")
    decided = [EXPRESSIONS[kind] if kind < 255 else None for kind in kinds]
    assert decided == table["expression"].to_list()
    raw = parquet(next(viewed.glob("person_outputs/head=va-default-*/source=*/video=test01")))
    raw = raw.filter(pl.col("person") == 1)["arousal_value"]
    expected = raw.clip(-1, 1).fill_null(-32768 / 32767).to_numpy() * 32767
    np.testing.assert_allclose(decode(person["raw"]["va"][1], "va"), expected, atol=1)


def test_the_page_needs_nothing_else_but_the_video(viewed, demo):
    page = page_of(viewed, "validation02")
    (link,) = re.findall(r'<video[^>]* src="([^"]*)"', page)
    assert (viewed / "reports/viewers/validation02" / link).samefile(demo.data / "videos/validation02.mp4")
    outside_scripts = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert not re.search(r"(?:src|href)=\"(?!\.\./|data:)", outside_scripts)


def test_thumbnails_can_be_left_out(store_copy):
    assert view(ViewParameters(["validation02"], store=str(store_copy), no_thumbnails=True)) == 0
    page = page_of(store_copy, "validation02")
    assert read_data(page)["persons"][0]["strip"] is None and 'id="strip"' not in page and "image/jpeg" not in page


def test_damaged_outputs_of_a_video_leave_the_viewers_of_others(store_copy, capsys):
    (part,) = store_copy.glob("outputs/head=va-default-*/source=*/subject=validation02/part-*.parquet")
    data = part.read_bytes()
    part.write_bytes(data[:8] + bytes(200) + data[208:])
    assert view(ViewParameters(["validation02", "validation03"], store=str(store_copy))) == 1
    printed = capsys.readouterr()
    assert "subject=validation02: part-" in printed.err and "run the same command again" in printed.err
    assert "1 viewer written" in printed.out and page_of(store_copy, "validation03")


def test_a_video_that_is_gone_leaves_a_page_that_says_so(store_copy, demo, tmp_path):
    moved = demo.data / "videos/validation02.mp4"
    hidden = moved.with_suffix(".hidden")
    moved.rename(hidden)
    try:
        assert view(ViewParameters(["validation02"], store=str(store_copy))) == 0
    finally:
        hidden.rename(moved)
    page = page_of(store_copy, "validation02")
    assert f"the video file is gone: {moved}" in page and "<video" not in page


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"videos": ["clip"]}, "expected a store with --store or a folder of predictions with --out, got neither"),
        ({"videos": ["validatoin02"], "store": "{store}"}, "did you mean validation02"),
        ({"videos": None, "store": "{empty}"}, "expected"),
        ({"videos": None, "out": "{empty}"}, "expected the store of these predictions in it"),
        ({"videos": None, "store": "{store}", "heads": ["nothing"]}, "none matches"),
    ],
)
def test_wrong_requests_are_one_line(demo, tmp_path, parameters, error):
    places = {"store": demo.store, "empty": tmp_path}
    filled = {name: value.format(**places) if isinstance(value, str) else value for name, value in parameters.items()}
    with pytest.raises(InputError, match=error):
        view(ViewParameters(**filled))


def test_forget_removes_the_viewer_of_the_video_alone(store_copy, capsys):
    assert view(ViewParameters(["validation02", "validation03"], store=str(store_copy))) == 0
    viewers = store_copy / "reports/viewers"
    (viewers / "validation02/video-1a2b3c4d.mp4").write_bytes(b"copy")
    capsys.readouterr()
    forget(ForgetParameters(["validation02"], store=str(store_copy), dry_run=True))
    assert capsys.readouterr().out.count("viewers") == 1 and (viewers / "validation02").is_dir()
    forget(ForgetParameters(["validation02"], store=str(store_copy)))
    assert [path.name for path in viewers.iterdir()] == ["validation03"]
    assert view(ViewParameters(["validation03"], store=str(store_copy))) == 0
