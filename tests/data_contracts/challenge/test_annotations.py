import numpy as np
import pytest

from data_contracts.challenge.annotations import annotation_files, check_readable, read_annotations
from data_contracts.challenge.editions import HEADERS
from data_contracts.errors import InputError
from data_contracts.schemas.dataset import check_schema
from data_contracts.schemas.labels import LABELS
from data_contracts.vocabulary import ACTION_UNITS

FOLDERS = {"train": "Train_Set", "validation": "Validation_Set"}


def write(root, task, lines, *, subject="s1", set_name="train", header=None):
    if task == "mtl":
        path = root / ("train_set.txt" if set_name == "train" else "validation_set.txt")
    else:
        path = root / FOLDERS[set_name] / f"{subject}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header or HEADERS[task], *lines]) + "\n")
    return path


def read(root, task, set_name="train"):
    table = read_annotations(root, task=task, set_name=set_name).table
    assert check_schema(table, LABELS).num_rows == table.num_rows
    return table


def test_expressions_with_unlabelled_frames(tmp_path):
    write(tmp_path, "expr", ["0", "-1", "7"], subject="b")
    write(tmp_path, "expr", ["3"], subject="a_left")
    table = read(tmp_path, "expr")
    assert table["subject"].to_pylist() == ["a_left", "b", "b", "b"]
    assert table["frame"].to_pylist() == [1, 1, 2, 3]
    assert table["expression"].to_pylist() == [3, 0, None, 7]
    assert table["row"].to_pylist() == [0, 1, 2, 3]
    assert table["valence"].null_count == table["AU1"].null_count == 4


def test_valence_without_arousal_is_null(tmp_path):
    write(tmp_path, "va", ["0.5,-1", "-5,0.2", "-5,-5", "1,1"], set_name="validation")
    table = read(tmp_path, "va", "validation")
    assert table["valence"].to_pylist() == [0.5, None, None, 1]
    assert table["arousal"].to_pylist() == [-1, None, None, 1]


def test_each_action_unit_is_null_by_itself(tmp_path):
    write(tmp_path, "au", ["1,0,-1," + ",".join("0" * 9), ",".join(["-1"] * 12)])
    table = read(tmp_path, "au")
    assert table.select(["AU1", "AU2", "AU4", "AU26"]).to_pylist()[0] == {"AU1": 1, "AU2": 0, "AU4": None, "AU26": 0}
    assert all(table[name].to_pylist()[1] is None for name in ACTION_UNITS)


def test_multi_task_rows_keep_their_order_and_may_repeat(tmp_path):
    rest = "-5,-5,-1," + ",".join(["1"] * 12)
    write(
        tmp_path,
        "mtl",
        [f"v/00003.jpg,{rest}", "u_right/00012.jpg,0.1,0.2,4," + ",".join(["-1"] * 12), f"v/00003.jpg,{rest}"],
    )
    table = read(tmp_path, "mtl")
    assert table["subject"].to_pylist() == ["v", "u_right", "v"] and table["frame"].to_pylist() == [3, 12, 3]
    assert table["expression"].to_pylist() == [None, 4, None]
    np.testing.assert_allclose(table["valence"].to_pylist()[1], 0.1, rtol=1e-6)
    assert table["AU12"].to_pylist() == [1, None, 1]


@pytest.mark.parametrize(
    ("task", "lines", "message"),
    [
        ("expr", ["0", "8"], "line 3: expected expression in -1..7"),
        ("expr", ["1.5"], "line 2: expected expression"),
        ("expr", ["0", "", "1"], "line 3: expected a number"),
        ("expr", ["zero"], "line 2: expected a number, got 'zero'"),
        ("va", ["0,0", "0.1,nan"], "line 3: expected a number, got 'nan'"),
        ("va", ["0,0,0"], "line 2: expected 2 values, got 3"),
        ("va", ["0.2,1.5"], "line 2: expected values in -1..1"),
        ("va", ["0.2,-3"], "line 2: expected values in -1..1"),
        ("au", ["0,1"], "line 2: expected 12 values, got 2"),
        ("au", [",".join(["2"] * 12)], "line 2: expected action unit in -1..1"),
        ("mtl", ["v/x.jpg,0"], "line 2: expected subject/00001.jpg"),
        ("mtl", ["../v/00001.jpg,0"], "line 2: expected subject/00001.jpg"),
        ("mtl", ["v/00001.jpg,0,0"], "line 2: expected 15 values, got 2"),
    ],
)
def test_faults_name_file_and_line(tmp_path, task, lines, message):
    path = write(tmp_path, task, lines)
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, task)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_header_and_missing_files_are_refused(tmp_path):
    write(tmp_path, "expr", ["0"], header="valence,arousal")
    with pytest.raises(InputError, match="line 1: expected the header 'Neutral,Anger"):
        read(tmp_path, "expr")
    with pytest.raises(InputError, match="expected annotation files Validation_Set"):
        read(tmp_path, "expr", "validation")


def test_header_without_rows_and_trailing_blank_lines_are_accepted(tmp_path):
    write(tmp_path, "va", [], subject="a")
    write(tmp_path, "va", ["0,0", "", ""], subject="b")
    assert read(tmp_path, "va").num_rows == 1


def test_only_annotation_files_are_read_and_all_other_entries_are_listed(tmp_path):
    write(tmp_path, "expr", ["0"], subject="a")
    folder = tmp_path / "Train_Set"
    (folder / "a.txt").rename(folder / "A.TXT")
    write(tmp_path, "expr", ["1"], subject="b")
    for name in ("._b.txt", ".DS_Store", "notes.docx", "c.csv"):
        (folder / name).write_text("x")
    (folder / "folder.txt").mkdir()
    found = annotation_files(tmp_path, task="expr", set_name="train")
    assert [path.name for path in found.files] == ["A.TXT", "b.txt"]
    assert sorted(path.name for path, _ in found.skipped) == sorted(
        ["._b.txt", ".DS_Store", "notes.docx", "c.csv", "folder.txt"]
    )
    assert read(tmp_path, "expr")["subject"].to_pylist() == ["A", "b"]


@pytest.mark.parametrize("names", [("a.txt", "a.TXT"), ("Am\u00e9.txt", "Ame\u0301.txt")])
def test_two_files_of_one_subject_are_refused(tmp_path, names):
    for name in names:
        write(tmp_path, "expr", ["0"]).rename(tmp_path / "Train_Set" / name)
    with pytest.raises(InputError, match=r"expected one annotation file per subject, found .* and .*; keep one"):
        annotation_files(tmp_path, task="expr", set_name="train")


def test_two_folders_or_lists_of_one_set_are_refused(tmp_path):
    write(tmp_path, "expr", ["0"])
    (tmp_path / "train_set").mkdir()
    with pytest.raises(InputError, match="expected one folder of the train set, found Train_Set and train_set"):
        annotation_files(tmp_path, task="expr", set_name="train")
    for name in ("train_set.txt", "training_set_annotations.txt"):
        (tmp_path / name).write_text("")
    with pytest.raises(InputError, match="expected one list of the train set"):
        annotation_files(tmp_path, task="mtl", set_name="train")


def test_one_readable_file_is_enough(tmp_path):
    bad = write(tmp_path, "expr", ["x"], subject="a")
    files = annotation_files(tmp_path, task="expr", set_name="train")
    with pytest.raises(InputError, match="line 2: expected a number"):
        check_readable(files, task="expr")
    (bad.parent / "lost.txt").symlink_to(tmp_path / "nowhere")
    write(tmp_path, "expr", ["0"], subject="z")
    check_readable(annotation_files(tmp_path, task="expr", set_name="train"), task="expr")
    found = read_annotations(tmp_path, task="expr", set_name="train")
    assert [fault.path.name for fault in found.faults] == ["a.txt", "lost.txt"] and found.table.num_rows == 1
