"""Annotations and test lists that are ambiguous, unreadable, or name subjects of other sets."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from data_contracts.challenge.editions import ABAW3_TEST_LISTS, HEADERS
from data_contracts.challenge.submissions import verify_submission
from data_contracts.details.heads import HeadDetails, PostprocessingDetails
from data_contracts.details.submissions import SubmissionDetails
from data_contracts.errors import InputError
from data_contracts.store.bundles import find_bundle, list_bundles, read_file, write_bundle
from data_contracts.store.store import Store
from flows.engine.run_results import SomeFailedError
from flows.fit import fit
from flows.submit import submit
from tasks.fit.import_labels import labels_key
from tasks.pages.write_report import write_report
from tests.processes import run_command
from tests.tasks.pages.test_write_report import read_page

SMALL = {"features": "scores", "hidden_units": 0, "seeds": 1}


@pytest.fixture
def expr(demo, tmp_path):
    """A copy of the annotations of expressions: the folder of the two sets."""
    source = demo.data / "Third ABAW Annotations" / "EXPR_Classification_Challenge"
    return Path(shutil.copytree(source, tmp_path / "data" / "EXPR_Classification_Challenge"))


def head_of(store, name):
    return HeadDetails.of(find_bundle(Store(store), f"heads/{name}"))


def rules_of(store, head):
    return [b for b in list_bundles(Store(store), "postprocessing") if PostprocessingDetails.of(b).head == head]


def test_two_releases_end_the_command_before_any_work(expr, store_copy, tmp_path):
    shutil.copytree(expr, tmp_path / "data" / "6th ABAW Annotations" / "EXPR_Recognition_Challenge")
    before = sorted(store_copy.rglob("*"))
    finished = run_command("fit", "expr", "--store", store_copy, "--annotations", tmp_path / "data")
    assert finished.returncode == 2 and len(finished.stderr.splitlines()) == 1
    for part in ("6th ABAW Annotations/EXPR_Recognition_Challenge", str(expr), "--annotations"):
        assert part in finished.stderr
    assert sorted(store_copy.rglob("*")) == before


def test_labels_of_an_earlier_import_are_never_used_for_others(expr, store_copy, dask_address, capsys):
    """The store has the labels of the demo, from other files."""
    options = {"store": str(store_copy), "annotations": expr.parent, "dask_address": dask_address, **SMALL}
    validation = expr / "Validation_Set"
    good = {path: path.read_bytes() for path in validation.iterdir()}
    for path in good:
        path.write_text("damaged\n")
    before = {bundle.name for bundle in list_bundles(Store(store_copy), "heads")}
    with pytest.raises(InputError, match=r"validation01.txt: line 1: expected the header .* \(and 3 more files\)"):
        fit("expr", **options)
    for path in good:
        path.unlink()
        path.symlink_to(path)
    with pytest.raises(InputError, match=r"symbolic links \(and 3 more files\)"):
        fit("expr", **options)
    shutil.rmtree(validation)
    validation.write_text("")
    with pytest.raises(InputError, match="Validation_Set: expected a folder of annotations that can be read"):
        fit("expr", **options)
    assert {bundle.name for bundle in list_bundles(Store(store_copy), "heads")} == before
    assert "import_labels" not in capsys.readouterr().out

    validation.unlink()
    validation.mkdir()
    for number, (path, content) in enumerate(sorted(good.items())):
        path.write_bytes(content if number else b"damaged\n")
    (validation / "notes.docx").write_text("")
    with pytest.raises(SomeFailedError):
        fit("expr", **options)
    printed = capsys.readouterr().out
    assert "annotations of expr" in printed and "14 found, 12 used, 2 skipped" in printed
    assert "files that cannot be read or have another format: Validation_Set/validation01.txt" in printed
    labels = Store(store_copy).manifests("labels")[labels_key("expr", "validation")]
    assert labels.details["subjects"] == ["validation02", "validation03", "validation04"]


def test_no_score_depends_on_validation_rows_of_videos_in_the_training_set(expr, expr_store, dask_address, capsys):
    options = {"store": str(expr_store), "annotations": expr.parent, "dask_address": dask_address, **SMALL}
    clean = fit("expr", **options)
    header = HEADERS["expr"]
    shutil.copy(expr / "Train_Set" / "train01.txt", expr / "Validation_Set")
    (expr / "Validation_Set" / "train08.txt").write_text(f"{header}\n" + "6\n" * 20)
    capsys.readouterr()
    name = fit("expr", train_on_validation=True, **options)
    printed = capsys.readouterr().out
    assert "2 subjects, or their videos, are also in the training set: train01, train08; their rows are" in printed
    first = head_of(expr_store, head_of(expr_store, name).scores_of)
    assert first.excluded_subjects == ("train01", "train08")
    assert first.figures == head_of(expr_store, clean).figures
    (rule,), (expected,) = rules_of(expr_store, head_of(expr_store, name).scores_of), rules_of(expr_store, clean)
    assert rule.details["figures"] == expected.details["figures"]
    train, validation = head_of(expr_store, name).coverage
    assert validation.excluded > 20 and validation.used == head_of(expr_store, clean).coverage[1].used
    assert train.used == head_of(expr_store, clean).coverage[0].used
    assert first.annotations == str(expr)
    store, first_name = Store(expr_store), head_of(expr_store, name).scores_of
    _, page = read_page(store, write_report(store, name="store", written=datetime.now(UTC)))
    assert [first_name, "expr", str(expr)] in [row[:3] for row in page.tables["Annotations"]]
    (table,) = [rows for caption, rows in page.tables.items() if "their rows are excluded" in caption]
    assert [first_name, "train08"] in table
    assert [first_name, "default"] in [row[0:3:2] for row in page.tables["Settings"]]


def test_a_head_of_an_earlier_version_that_saw_excluded_subjects_is_replaced(
    expr, store_copy, tmp_path, dask_address, capsys
):
    options = {"store": str(store_copy), "annotations": tmp_path / "data", "dask_address": dask_address, **SMALL}
    shutil.copy(expr / "Train_Set" / "train01.txt", expr / "Validation_Set")
    lists = tmp_path / "data" / "names_of_videos_in_each_test_set"
    lists.mkdir()
    (lists / ABAW3_TEST_LISTS["expr"]).write_text("train02\nvalidation01\ntest01\n")
    name = fit("expr", **options)
    printed = capsys.readouterr().out
    assert f"warning: {lists / ABAW3_TEST_LISTS['expr']}: 1 subject, or its video, is also in the train set" in printed
    assert "is also in the validation set of expr: validation01" in printed
    store, folder = Store(store_copy), f"heads/{name}"
    good = find_bundle(store, folder)
    old = replace(HeadDetails.of(good), excluded_subjects=())
    files = {file: read_file(store, good, file) for file in good.files}
    write_bundle(store, folder, files, fingerprint="an earlier version", details=old)
    assert fit("expr", **options) == name
    assert find_bundle(store, folder).fingerprint == good.fingerprint
    assert head_of(store_copy, name).excluded_subjects == ("train01",)


def test_paper_excludes_rows_without_a_face_and_replaces_what_was_tuned_with_them(
    demo, store_copy, dask_address, capsys
):
    options = {"store": str(store_copy), "annotations": demo.data, "dask_address": dask_address}
    name = fit("au", recipe="paper", **options)
    validation = head_of(store_copy, name).coverage[1]
    assert validation.labelled_without_face > 0
    (rule,) = rules_of(store_copy, name)
    details = PostprocessingDetails.of(rule)
    counts = details.scored_rows, details.scored_without_face, details.excluded_without_face
    assert counts == (validation.used, 0, validation.labelled_without_face)
    assert f"{validation.labelled_without_face} labelled validation rows show no face; they are excluded" in (
        capsys.readouterr().out
    )
    write_bundle(Store(store_copy), f"postprocessing/{name}-paper-00000000", {}, fingerprint="old", details=details)
    fit("au", recipe="paper", **options)
    assert rules_of(store_copy, name) == [rule]


def test_a_list_may_spell_subjects_differently(demo, store_copy, tmp_path, dask_address, capsys):
    lists = demo.data / "names_of_videos_in_each_test_set"
    plain = lists / ABAW3_TEST_LISTS["va"]
    first = Path(submit("va", str(store_copy), plain, dask_address=dask_address))
    names = plain.read_text().split()
    spelled = [f"videos/{names[0]}.mp4", f"{names[1]}.MTS  ", f"./{names[2]}", names[3].upper()]
    other = tmp_path / ABAW3_TEST_LISTS["va"]
    other.write_bytes(("\ufeff" + "\r\n".join(spelled) + "\r\n").encode())
    capsys.readouterr()
    second = Path(submit("va", str(store_copy), tmp_path, dask_address=dask_address))
    printed = capsys.readouterr().out
    assert f"note: {other}: 4 names are spelled differently than the subjects in the store" in printed
    assert f"{names[3].upper()} as {names[3]}" in printed
    assert verify_submission(second, test_list=other) == []
    texts = [sorted((path.parent / "predictions").iterdir()) for path in (first, second)]
    assert sorted(path.name.lower() for path in texts[1]) == sorted(path.name for path in texts[0])
    assert names[3].upper() + ".txt" in {path.name for path in texts[1]}
    assert sorted(path.read_bytes() for path in texts[0]) == sorted(path.read_bytes() for path in texts[1])
    details = SubmissionDetails.of(find_bundle(Store(store_copy), f"submissions/{second.parent.name}"))
    assert details.test_list == str(other) and details.checks.against.endswith("videos of 4 counted")

    shutil.copy(plain, tmp_path / ABAW3_TEST_LISTS["va"].replace(".txt", " (1).txt"))
    with pytest.raises(InputError, match=r"expected one test list of va .*\(1\)\.txt.*--test-list"):
        submit("va", str(store_copy), tmp_path, dask_address=dask_address)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nobody.mp4", "extract the video of nobody first"),
        ("train08", "train08 was extracted with two subjects: name train08_left and train08_right instead"),
        ("train01_left", "train01 was extracted with one subject: run extract on a folder that has the list"),
    ],
)
def test_a_subject_without_outputs_has_the_right_advice(store_copy, tmp_path, dask_address, name, hint):
    (tmp_path / "list.txt").write_text(f"validation01\n{name}\n")
    with pytest.raises(InputError, match=rf"found none for 1 \({name.removesuffix('.mp4')}\); {hint}"):
        submit("expr", str(store_copy), tmp_path / "list.txt", dask_address=dask_address)


def test_test_subjects_that_the_head_was_fitted_on_are_named(demo, expr_store, tmp_path, dask_address, capsys):
    (tmp_path / "list.txt").write_text("train01\ntrain08_left\nvalidation01\n")
    path = Path(submit("expr", str(expr_store), tmp_path / "list.txt", dask_address=dask_address))
    printed = capsys.readouterr().out
    assert "list.txt: 2 subjects, or their videos, are also in the train set of head expr-" in printed
    assert "list.txt: 1 subject, or its video, is also in the validation set of head expr-" in printed
    details = SubmissionDetails.of(find_bundle(Store(expr_store), f"submissions/{path.parent.name}"))
    assert (details.in_train, details.in_validation) == (("train01", "train08_left"), ("validation01",))
    assert details.annotations.endswith("EXPR_Classification_Challenge")
    store = Store(expr_store)
    _, page = read_page(store, write_report(store, name="store", written=datetime.now(UTC)))
    assert [path.parent.name, str(tmp_path / "list.txt")] in [row[:2] for row in page.tables["Test lists"]]
    seen = page.tables["Test subjects in the sets that the head was fitted on"]
    assert [path.parent.name, "validation01", "validation"] in seen
