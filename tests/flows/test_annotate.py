"""``score --annotate``: copies are written once, again if something has changed, and removed by ``forget``."""

import shutil

import av
import numpy as np
import pytest

from data_contracts.errors import InputError
from data_contracts.files.locations import location
from data_contracts.store.store import Store
from flows.commands.forget import forget
from flows.commands.parameters import ForgetParameters
from flows.engine.run_results import SomeFailedError
from flows.rescore import rescore
from flows.score import score
from tasks.annotate.annotate_video import plan_annotate_videos
from tasks.results.annotated_copies import ANNOTATED_RECORD, read_annotated
from tests.video_factory import cut_file


@pytest.fixture(scope="module")
def annotated(demo, tmp_path_factory, dask_address):
    """A folder with one scored and annotated video, its store, and the printed lines."""
    root = tmp_path_factory.mktemp("annotated")
    (root / "videos").mkdir()
    shutil.copy(demo.data / "videos" / "validation01.mp4", root / "videos" / "clip é.mp4")
    written = score([root / "videos"], root / "out", dask_address=dask_address, annotate=True)
    return root, written


def files_of(folder):
    files = (path for path in folder.iterdir() if path.is_file() and path.suffix != ".lock")
    return {path.name: path.stat().st_mtime_ns for path in files}


def test_a_copy_with_the_same_frames_is_written_beside_the_predictions(annotated):
    root, written = annotated
    assert [str(one).rsplit("/", 1)[-1] for one in written] == [
        *(f"clip é{suffix}" for suffix in (".parquet", ".csv", ".annotated.mp4")),
    ]
    with av.open(written[2]) as copy, av.open(str(root / "videos" / "clip é.mp4")) as source:
        times = [[frame.time for frame in one.decode(video=0)] for one in (copy, source)]
        assert times[0] == times[1] and copy.streams.video[0].codec_context.name == "h264"
    with av.open(written[2]) as copy, av.open(str(root / "videos" / "clip é.mp4")) as source:
        first, original = (next(one.decode(video=0)).to_ndarray(format="gray").astype(int) for one in (copy, source))
    share = (np.abs(first - original) > 40).mean()
    assert 0.001 < share < 0.2, "the box and the label are drawn, and the picture is kept"
    assert not (root / "out" / ".unfinished").exists()


def test_a_second_run_writes_nothing_and_scores_no_copy(annotated, dask_address, capsys):
    root, _ = annotated
    before = files_of(root / "out")
    score([root / "videos"], root / "out", dask_address=dask_address, annotate=True)
    assert files_of(root / "out") == before
    shutil.copy(root / "out" / "clip é.annotated.mp4", root / "videos")
    score([root / "videos"], root / "out", dask_address=dask_address)
    (root / "videos" / "clip é.annotated.mp4").unlink()
    printed = capsys.readouterr().out
    assert "1 ignored, annotated copies that score --annotate wrote: clip é.annotated.mp4" in printed
    assert files_of(root / "out") == before
    with pytest.raises(InputError, match=r"got an annotated copy of a video"):
        score([root / "out" / "clip é.annotated.mp4"], root / "out")


def test_a_copy_is_written_again_if_it_or_its_predictions_have_changed(annotated, dask_address, capsys):
    root, _ = annotated
    store, out = Store(root / "out" / "store"), root / "out"

    def is_made():
        (job,) = plan_annotate_videos(store, ["clip é", "other"], out=out)
        return job.is_made

    assert is_made()
    path = out / "clip é.annotated.mp4"
    data = path.read_bytes()
    path.write_bytes(data + b"\0")
    assert not is_made()
    path.unlink()
    assert not is_made()
    capsys.readouterr()
    score([root / "videos"], out, dask_address=dask_address, annotate=True)
    assert is_made() and path.read_bytes()[:100] == data[:100]
    assert capsys.readouterr().out.splitlines()[-1] == "1 video: 1 up to date, 1 annotated"
    score([root / "videos"], out, dask_address=dask_address, missing_faces="interpolate")
    assert not is_made()
    score([root / "videos"], out, dask_address=dask_address, annotate=True)
    assert is_made()


def test_rescore_names_outdated_copies_and_writes_them_again(annotated, dask_address, capsys):
    root, _ = annotated
    out, store = root / "out", str(root / "out" / "store")
    score([root / "videos"], out, dask_address=dask_address, annotate=True)
    capsys.readouterr()
    options = {"dask_address": dask_address, "settle_seconds": 0, "people": "main"}
    before = files_of(out)
    rescore([root / "videos"], store, out, **options)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"note: 1 annotated video in {out} outdated (clip é.annotated.mp4); --annotate writes them again" in printed
    assert files_of(out)["clip é.annotated.mp4"] == before["clip é.annotated.mp4"]
    rescore([root / "videos"], store, out, annotate=True, **options)
    assert "outdated" not in capsys.readouterr().out
    after = files_of(out)
    assert after["clip é.annotated.mp4"] != before["clip é.annotated.mp4"]
    rescore([root / "videos"], store, out, annotate=True, **options)
    assert files_of(out) == after


@pytest.mark.service
def test_videos_and_copies_on_s3_equal_those_on_a_disk(demo, tmp_path, s3_bucket):
    source, bucket = demo.data / "videos" / "validation01.mp4", location(s3_bucket)
    bucket.fs.put(str(source), (bucket / "videos" / "validation01.mp4").path)
    outs = [tmp_path / "out", f"{s3_bucket}/out"]
    for videos, out in zip((source, f"{s3_bucket}/videos"), outs, strict=True):
        score([videos], out, annotate=True, workers=1)
    name = (bucket / "out" / "validation01.annotated.mp4").path
    assert bucket.fs.cat_file(name) == (tmp_path / "out" / "validation01.annotated.mp4").read_bytes()
    written = bucket.fs.info(name)
    score([f"{s3_bucket}/videos"], outs[1], annotate=True, workers=1)
    bucket.fs.invalidate_cache()
    assert bucket.fs.info(name) == written, "a second run writes nothing"
    assert forget(ForgetParameters(store=f"{outs[1]}/store", videos=["validation01"])) == 0
    bucket.fs.invalidate_cache()
    left = {path: bucket.fs.cat_file(path) for path in bucket.fs.find((bucket / "out").path)}
    assert left and [path for path, data in left.items() if "validation01" in path or b"validation01" in data] == []


def test_a_broken_video_takes_only_itself_down_and_a_cut_one_has_a_copy(demo, tmp_path, dask_address):
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    for name in ("good", "cut"):
        shutil.copy(demo.data / "videos" / "validation01.mp4", videos / f"{name}.mp4")
    with av.open(str(videos / "cut.mp4")) as source, av.open(str(videos / "cut.ts"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    (videos / "cut.mp4").unlink()
    cut_file(videos / "cut.ts", videos / "cut.ts", fraction=0.7)
    (videos / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(200))
    with pytest.raises(SomeFailedError, match="broken"):
        score([videos], out, dask_address=dask_address, annotate=True)
    copies = sorted(path.name for path in out.glob("*.mp4"))
    assert copies == ["cut.annotated.mp4", "good.annotated.mp4"]
    with av.open(str(out / "cut.annotated.mp4")) as copy:
        frames = sum(1 for _ in copy.decode(video=0))
    assert frames == len((out / "cut.csv").read_text().splitlines()) - 1


def test_forget_removes_the_copy_and_its_record(annotated):
    root, _ = annotated
    out = root / "out"
    assert forget(ForgetParameters(store=str(out / "store"), videos=["clip é"])) == 0
    assert not list(out.glob("clip*")) and not (out / ANNOTATED_RECORD).exists()
    assert read_annotated(Store(out)) == {}
    assert not any("clip" in path.read_text(errors="replace") for path in out.iterdir() if path.is_file())
