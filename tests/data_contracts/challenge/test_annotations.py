import numpy as np
import pytest

from data_contracts.challenge.annotations import read_annotations
from data_contracts.challenge.editions import HEADERS
from data_contracts.errors import InputError
from data_contracts.schemas import LABELS, check_schema
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
