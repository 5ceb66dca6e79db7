import csv
import io
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from data_contracts.challenge.editions import ABAW3_TEST_LISTS
from data_contracts.challenge.submissions import verify_submission
from data_contracts.details.submissions import SubmissionDetails
from data_contracts.errors import InputError
from data_contracts.store.bundles import list_bundles
from data_contracts.store.manifest import UnitKey
from data_contracts.store.store import Store
from flows.commands.command_line import app
from flows.commands.parameters import StatusParameters
from flows.commands.status import print_status
from flows.engine.run_results import SomeFailedError
from flows.fit import fit
from flows.submit import submit
from models.decisions.smoothing import PUBLISHED_SMOOTHINGS
from tasks.fit.predict_outputs import read_outputs
from tasks.fit.stored_heads import load_postprocessing


def test_the_same_request_writes_the_same_zip_and_wrong_lists_are_refused(demo, store_copy, tmp_path, dask_address):
    lists = demo.data / "names_of_videos_in_each_test_set"
    first = submit("expr", str(store_copy), lists / ABAW3_TEST_LISTS["expr"], dask_address=dask_address)
    from_demo = next((demo.store / "submissions").glob("abaw3-expr-*/abaw3_expr.zip"))
    with open(first, "rb") as ours:
        assert ours.read() == from_demo.read_bytes()
    (tmp_path / "list.txt").write_text("test01\nnobody\n")
    with pytest.raises(InputError, match=r"found none for 1 \(nobody\)"):
        submit("expr", str(store_copy), tmp_path / "list.txt", dask_address=dask_address)
    with pytest.raises(InputError, match=r"expected one for va, found: expr-default-\w+ \(expr\)"):
        submit("va", str(store_copy), lists / ABAW3_TEST_LISTS["va"], head="expr", dask_address=dask_address)


def test_faults_of_a_written_submission_are_reported_and_stored(demo, store_copy, dask_address, capsys):
    store = Store(store_copy)
    key = UnitKey("videos", (("video", "test01"),))
    counted = store.manifests("videos")[key]
    more = replace(counted, details=counted.details | {"frame_count": counted.details["frame_count"] + 1})
    store.write_bytes(key.manifest_path, more.to_json())
    shutil.rmtree(store_copy / "submissions")
    lists = demo.data / "names_of_videos_in_each_test_set"
    fault = "test01.txt: expected 49 rows, one per frame of the video, got 48"
    with pytest.raises(SomeFailedError, match=f"abaw3-va-.*: 1 fault, first: {fault}"):
        submit("va", str(store_copy), lists / ABAW3_TEST_LISTS["va"], dask_address=dask_address)
    assert f"verified va: 1 fault, first: {fault} (test list of 4 subjects" in capsys.readouterr().out
    (bundle,) = list_bundles(store, "submissions")
    assert bundle.details["checks"]["faults"] == [fault]


def rows_of_zip(path):
    with zipfile.ZipFile(path) as archive:
        (name,) = archive.namelist()
        return archive.read(name).decode().splitlines()


def rows_of_subjects(demo, task):
    """Return the values of each subject and frame in the ABAW3 submission of the demo."""
    found = {}
    with zipfile.ZipFile(next((demo.store / "submissions").glob(f"abaw3-{task}-*/*.zip"))) as archive:
        for name in archive.namelist():
            lines = archive.read(name).decode().splitlines()[1:]
            found |= {(name.removesuffix(".txt"), n): line for n, line in enumerate(lines, start=1)}
    return found


@pytest.mark.parametrize(
    ("task", "name", "dummy"),
    [
        ("expr", "CVPR_6th_ABAW_Expr_test_set_example.txt", "0"),
        ("va", "CVPR_5th_ABAW_VA_test_set_sample.txt", ""),
        ("au", "CVPR_8th_ABAW_AU_test_set_sample.txt", ",".join("0" * 12)),
    ],
)
def test_rows_of_a_sample_file_in_its_order_with_the_values_of_their_frames(
    demo, store_copy, tmp_path, dask_address, task, name, dummy
):
    by_frame = rows_of_subjects(demo, task)
    last = {subject: max(n for s, n in by_frame if s == subject) for subject, _ in by_frame}
    wanted = [key for key in by_frame if key[1] % 3] + [(subject, n + 2) for subject, n in last.items()]
    np.random.default_rng(0).shuffle(wanted)
    wanted = [(str(subject), int(frame)) for subject, frame in wanted]
    sample = tmp_path / name
    lines = [f"{subject}/{frame:05d}.jpg,{dummy}" for subject, frame in wanted]
    sample.write_text("\r\n".join(["image_location,whatever", *lines]) + "\r\n")

    path = Path(submit(task, str(store_copy), sample, dask_address=dask_address))

    assert path.name == f"abaw{name.split('_')[1][0]}_{task}.zip"
    header, *rows = rows_of_zip(path)
    assert header.startswith("image_location,")
    expected = [by_frame[subject, min(frame, last[subject])] for subject, frame in wanted]
    assert rows == [f"{s}/{f:05d}.jpg,{v}" for (s, f), v in zip(wanted, expected, strict=True)]
    assert verify_submission(path, test_list=sample) == []
    coverage = list(csv.DictReader(io.StringIO((path.parent / "coverage.csv").read_text())))
    parts = ("with_face", "interpolated", "before_first_face", "after_last_face", "without_any_face", "beyond_video")
    for row in coverage:
        assert sum(int(row[part]) for part in parts) == int(row["rows"])
        assert row["beyond_video"] == "1" and row["frames_known_from"] == "video"
    assert sum(int(row["rows"]) for row in coverage) == len(wanted)


def test_a_list_that_does_not_fit_the_edition_is_refused(demo, store_copy, dask_address):
    subjects = demo.data / "names_of_videos_in_each_test_set" / ABAW3_TEST_LISTS["va"]
    with pytest.raises(InputError, match=r"expected a list of frames .* for abaw6 va, got a list of subjects"):
        submit("va", str(store_copy), subjects, edition="abaw6", dask_address=dask_address)


def test_lists_of_other_tasks_and_damaged_heads_are_refused_before_any_work(demo, store_copy, tmp_path, capsys):
    lists = demo.data / "names_of_videos_in_each_test_set"
    shutil.rmtree(store_copy / "outputs")
    for task, other in (("expr", "va"), ("au", "expr"), ("va", "mtl"), ("mtl", "au")):
        with pytest.raises(InputError, match=f"expected a test list of {task}, got one of {other}, as its name shows"):
            submit(task, str(store_copy), lists / ABAW3_TEST_LISTS[other])
    damaged = tmp_path / "list.txt"
    damaged.write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.raises(InputError, match=r"list\.txt"):
        submit("expr", str(store_copy), damaged)
    (weights,) = (store_copy / "heads").glob("va-*/head.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"heads/va-default-.*: expected the files that fit wrote"):
        submit("va", str(store_copy), lists / ABAW3_TEST_LISTS["va"])
    assert not (store_copy / "outputs").exists() and "predict_outputs" not in capsys.readouterr().out
    assert print_status(StatusParameters(str(store_copy))) == 1
    printed = capsys.readouterr().out
    assert f"damaged: heads/{weights.parent.name}: files are missing or were changed" in printed


def test_a_list_without_a_task_is_used_and_noted(demo, store_copy, tmp_path, dask_address, capsys):
    lists = demo.data / "names_of_videos_in_each_test_set"
    own = shutil.copy(lists / ABAW3_TEST_LISTS["au"], tmp_path / "mine.txt")
    submit("au", str(store_copy), Path(own), dask_address=dask_address)
    note = f"note: {own}: name and content show no task; the list is used for au of abaw3"
    assert note in capsys.readouterr().out


def smooth_by_hand(values, name):
    """Smooth [T, K] frame by frame, with windows that are cut at the ends."""
    kind, _, window = name.partition(" ")
    half = int(window or 1) // 2
    reduce = np.median if kind == "median" else np.mean
    windows = (values[max(frame - half, 0) : frame + half + 1] for frame in range(len(values)))
    return np.array([reduce(window, axis=0) for window in windows])


def fill_by_hand(values, present):
    """Fill gaps as the published notebook does: with exchanged weights of the two neighbours."""
    filled, known = values.astype(np.float64), np.flatnonzero(present)
    for frame in np.flatnonzero(~present):
        before, after = known[known < frame], known[known > frame]
        if len(before) and len(after):
            share = (frame - before[-1]) / (after[0] - before[-1])
            filled[frame] = share * values[before[-1]] + (1 - share) * values[after[0]]
        else:
            filled[frame] = values[before[-1] if len(before) else after[0]]
    return filled


def test_published_five_writes_the_submissions_of_the_paper(demo, store_copy, dask_address):
    lists = demo.data / "names_of_videos_in_each_test_set"
    shutil.rmtree(store_copy / "submissions")
    options = {"annotations": demo.data, "dask_address": dask_address}
    head = fit("au", str(store_copy), recipe="paper", **options)
    list_path = lists / ABAW3_TEST_LISTS["au"]
    words = ["submit", "au", "--store", store_copy, "--test-list", list_path, "--head", head, "--published-five"]
    words += ["--dask-address", dask_address]
    done = CliRunner().invoke(app, [str(word) for word in words], standalone_mode=False)
    assert done.exception is None and done.output.count("verified au: no fault") == 5

    store = Store(store_copy)
    labels = ["none", "mean5", "median5", "mean15", "median15"]
    written = {SubmissionDetails.of(bundle).smoothing: bundle for bundle in list_bundles(store, "submissions")}
    assert written.keys() == PUBLISHED_SMOOTHINGS.keys()
    assert {SubmissionDetails.of(bundle).zip for bundle in written.values()} == {f"abaw3_au_{n}.zip" for n in labels}
    with_scores = {name for name, bundle in written.items() if SubmissionDetails.of(bundle).figures.tuned}
    assert with_scores == {"median 15"}  # the smoothing of the post-processing
    (rule,) = [one for one in list_bundles(store, "postprocessing") if one.details["head"] == head]
    thresholds = load_postprocessing(store, rule).rules["au"].thresholds
    outputs = store.manifests("outputs", head=head)
    decided = set()
    for name, bundle in written.items():
        path = store_copy / "submissions" / bundle.name / bundle.details["zip"]
        assert verify_submission(path, test_list=list_path) == []
        decided.add(path.read_bytes())
        for key, manifest in outputs.items():
            if not key.value("subject").startswith("test"):
                continue
            present, values = read_outputs(store, key, manifest, ("au",))
            smoothed = smooth_by_hand(fill_by_hand(values["au"], present), name)
            rows = (path.parent / "predictions" / f"{key.value('subject')}.txt").read_text().splitlines()[1:]
            found = np.array([row.split(",") for row in rows], int)
            # Values at a threshold may round to either side.
            certain = np.abs(smoothed - thresholds) > 1e-6
            assert certain.mean() > 0.99
            np.testing.assert_array_equal(found[certain], (smoothed >= thresholds)[certain], err_msg=name)
    assert len(decided) == 5


def test_published_five_needs_published_thresholds_and_no_multi_task_head(demo, store_copy):
    lists = demo.data / "names_of_videos_in_each_test_set"
    with pytest.raises(InputError, match=r"got expr-default-\w+-default-\w+ of recipe default; run fit expr --recipe"):
        submit("expr", str(store_copy), lists / ABAW3_TEST_LISTS["expr"], published_five=True)
    with pytest.raises(
        InputError, match=r"--published-five: expected expr, va or au, got mtl; .* leave out the option"
    ):
        submit("mtl", str(store_copy), lists / ABAW3_TEST_LISTS["mtl"], published_five=True)


def test_published_five_of_a_later_edition(demo, store_copy, tmp_path, dask_address):
    fit("va", str(store_copy), demo.data, recipe="paper", dask_address=dask_address)
    sample = tmp_path / "CVPR_5th_ABAW_VA_test_set_sample.txt"
    sample.write_text("image_location,valence,arousal\n" + "".join(f"test01/{n:05d}.jpg,\n" for n in range(1, 40)))
    head = next((store_copy / "heads").glob("va-paper-*")).name
    path = submit("va", str(store_copy), sample, head=head, published_five=True, dask_address=dask_address)
    assert Path(path).name == "abaw5_va_none.zip"
    zips = [one for one in (store_copy / "submissions").glob("abaw5-va-*/*.zip")]
    assert len(zips) == 5 and len({one.read_bytes() for one in zips}) == 5
    assert all(verify_submission(one, test_list=sample) == [] for one in zips)
