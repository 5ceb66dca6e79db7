import shutil
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from data_contracts.errors import InputError
from data_contracts.store.lock import lock_folder
from data_contracts.store.store import Store
from data_contracts.vocabulary import EXPRESSIONS
from flows.engine.run_results import SomeFailedError
from flows.score import find_media, score
from models.faces.detection import DetectorParams
from tests.backbone_files import WITH_AFFECT, write_trained_backbone
from tests.video_factory import VideoSpec, write_video


def test_predictions_are_written_as_parquet_and_csv(demo, store_copy, tmp_path, dask_address, capsys):
    video = tmp_path / "my clip é.mp4"
    shutil.copy(demo.data / "videos" / "validation01.mp4", video)
    written = score([video], tmp_path / "out", str(store_copy), dask_address=dask_address)
    assert [Path(path).name for path in written] == ["my clip é.parquet", "my clip é.csv"]
    table, text = pl.read_parquet(written[0]), pl.read_csv(written[1])
    assert table.columns == text.columns and len(table) == len(text) == 48
    np.testing.assert_allclose(table["time_seconds"], np.arange(48) / 25, atol=1e-6)
    assert table["frame"].to_list() == list(range(1, 49))
    assert 8 <= (~table["has_face"]).sum() < 8 + DetectorParams().search_every_frames
    assert set(table.filter("has_face")["expression"]) <= set(EXPRESSIONS)
    assert table["expression"].is_null().to_list() == (~table["has_face"]).to_list()
    assert table["valence"].is_between(-1, 1).all() and table["p_au12"].is_between(0, 1).all()
    assert set(table["AU26"].drop_nulls()) <= {0, 1}
    outputs = {path: path.stat().st_mtime_ns for path in (store_copy / "person_outputs").rglob("*.parquet")}
    filled = score([video], tmp_path / "out", str(store_copy), missing_faces="interpolate", dask_address=dask_address)
    assert filled == written and pl.read_parquet(filled[0])["expression"].null_count() == 0
    assert outputs == {path: path.stat().st_mtime_ns for path in (store_copy / "person_outputs").rglob("*.parquet")}
    outputs = [key for key in Store(store_copy).manifests("person_outputs") if key.value("video") == "my clip é"]
    heads = {key.value("head") for key in outputs}
    printed = capsys.readouterr().out
    assert "backbone: emotion_lite0 (bundled weights): its features are those that the heads were fitted on" in printed
    assert printed.count("the only head for") == 2 * 3 and "mtl-default" not in printed
    assert {name.split("-")[0] for name in heads} == {"expr", "va", "au"}, "mtl serves no task, so it predicts nothing"


def test_a_run_on_another_store_waits_for_the_folder_of_predictions(demo, tmp_path, dask_address, capsys):
    """A folder that is also the store is not waited for."""
    video, out, store, errors = demo.data / "videos" / "validation01.mp4", tmp_path / "out", tmp_path / "store", ""
    options = {"dask_address": dask_address}
    run = threading.Thread(target=score, args=([video], out, str(store)), kwargs=options)
    with lock_folder(Store(out), on_wait=pytest.fail):
        run.start()
        while "is using this folder; waiting until it ends" not in errors and run.is_alive():
            time.sleep(0.1)
            errors += capsys.readouterr().err
        assert run.is_alive() and not (out / "validation01.parquet").exists()
    run.join()
    assert (out / "validation01.parquet").exists()
    assert [Path(path).parent for path in score([video], store, str(store), **options)] == [store] * 2


def test_wrong_requests_are_reported_in_one_line(demo, tmp_path):
    with pytest.raises(InputError, match="found nothing there"):
        find_media([tmp_path / "typo.mp4"])
    with pytest.raises(InputError, match="expected video files or images"):
        score([tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_videos_that_share_a_name_are_refused_and_others_scored(demo, tmp_path, dask_address):
    videos = [tmp_path / name for name in ("a.mp4", "sub/a.MOV", "b.xyz")]
    for path in videos:
        path.parent.mkdir(exist_ok=True)
        shutil.copy(demo.data / "videos" / "validation01.mp4", path)
    with pytest.raises(SomeFailedError, match=r"a\.mp4: expected one video per name, got also .*a\.MOV; rename"):
        score([tmp_path], tmp_path / "out", dask_address=dask_address)
    assert (tmp_path / "out" / "b.csv").exists() and not (tmp_path / "out" / "a.csv").exists()


def test_a_video_with_the_name_of_another_folder_does_not_replace_its_predictions(tmp_path, dask_address, capsys):
    """Cameras give every card, and studies every participant, videos of the same names. Copies are no other videos."""
    first, second, copy, third = (tmp_path / name / "a.mp4" for name in ("one", "two", "copy", "three"))
    for path, frames in ((first, 3), (second, 4), (third, 5)):
        path.parent.mkdir()
        write_video(path, VideoSpec(frame_count=frames))
    shutil.copytree(first.parent, copy.parent)
    out, options = tmp_path / "out", {"dask_address": dask_address}
    score([first], out, **options)
    with pytest.raises(SomeFailedError, match=rf"1 failed; first: .*{second}: expected one video .* got also {first}"):
        score([second], out, **options)
    score([copy], out, **options)
    assert len(pl.read_parquet(out / "a.parquet")) == 3
    copy.unlink()
    capsys.readouterr()
    score([third], out, **options)
    assert len(pl.read_parquet(out / "a.parquet")) == 5
    assert f"{third} replaces {copy}\n" in capsys.readouterr().out


def test_without_heads_the_backbone_predicts_expressions(demo, tmp_path, dask_address):
    out = tmp_path / "out"
    written = score([demo.data / "videos" / "validation01.mp4"], out, dask_address=dask_address)
    table = pl.read_parquet(written[0])
    known = [column for column in table.columns if column.startswith("p_")]
    known = [column for column in known if not column.startswith("p_au")]
    np.testing.assert_allclose(table.filter("has_face").select(known).to_numpy().sum(axis=1), 1, atol=1e-5)
    assert (
        (table["p_other"].drop_nulls() == 0).all() and table["valence"].is_null().all() and table["AU1"].is_null().all()
    )
    again = score([demo.data / "videos" / "validation01.mp4"], out, dask_address=dask_address)
    assert again == written and len(list((out / "store" / "heads").iterdir())) == 1


def test_a_trained_backbone_of_the_store_predicts_what_it_knows(demo, tmp_path, dask_address, capsys):
    store, out, name = tmp_path / "store", tmp_path / "out", "efficientnet_lite0-emotion-12345678"
    write_trained_backbone(Store(store), name, WITH_AFFECT)
    (path, _) = score([demo.data / "videos" / "validation01.mp4"], out, str(store), dask_address=dask_address)
    table = pl.read_parquet(path)
    assert table["valence"].is_between(-1, 1).all() and table["arousal"].std() > 0 and table["AU1"].is_null().all()
    seen = table.filter("has_face")
    features = next(iter(Store(store).manifests("face_features").items()))
    logits = np.array(Store(store).read_unit(*features)["logits"].to_pylist())
    np.testing.assert_allclose(seen["valence"], np.clip(logits[:, WITH_AFFECT.index("valence")], -1, 1), atol=1e-5)
    printed = capsys.readouterr().out
    assert (
        f"backbone: efficientnet_lite0 ({store}/backbones/{name}/backbone.safetensors): no head was fitted; " in printed
    )
    assert "va-zero-shot-" in printed and "expr-zero-shot-" in printed
