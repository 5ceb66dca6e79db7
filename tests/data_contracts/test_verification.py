import io
import zipfile

import numpy as np
import pytest

from data_contracts.errors import InputError
from data_contracts.submission_files import format_mtl_file, format_subject_file, zip_bytes
from data_contracts.verification import verify_submission

ROWS = {"s1": 3, "s2": 2}
DECISIONS = {
    "expr": {name: np.zeros(rows, int) for name, rows in ROWS.items()},
    "va": {name: np.zeros((rows, 2)) for name, rows in ROWS.items()},
    "au": {name: np.zeros((rows, 12), int) for name, rows in ROWS.items()},
}
MTL = ["s1/00001.jpg", "s2/00002.jpg", "s1/00003.jpg"]


def texts(task):
    if task == "mtl":
        arrays = {"va": np.zeros((3, 2)), "expr": np.zeros(3, int), "au": np.zeros((3, 12), int)}
        return {"MTL_predictions.txt": format_mtl_file(MTL, **arrays)}
    return {f"{name}.txt": format_subject_file(task, values) for name, values in DECISIONS[task].items()}


def verify(tmp_path, files, task, *, raw=None):
    (tmp_path / "s.zip").write_bytes(raw or zip_bytes(files))
    (tmp_path / "list").write_text("\n".join(MTL if "MTL_predictions.txt" in files else ROWS))
    return verify_submission(tmp_path / "s.zip", task=task, test_list=tmp_path / "list", expected_rows=ROWS)


@pytest.mark.parametrize("task", ["expr", "va", "au", "mtl"])
@pytest.mark.parametrize("named", [True, False])
def test_ours_is_accepted(tmp_path, task, named):
    assert verify(tmp_path, texts(task), task if named else None) == []
    (tmp_path / "folder").mkdir()
    for name, data in texts(task).items():
        (tmp_path / "folder" / name).write_bytes(data)
    assert verify_submission(tmp_path / "folder") == []


def changed(task, name, old, new, count=1):
    files = texts(task)
    assert old in files[name]
    return files | {name: files[name].replace(old, new, count)}


BROKEN = {
    "missing subject": ("expr", {"s1.txt": texts("expr")["s1.txt"]}, "not in the submission"),
    "extra subject": ("expr", texts("expr") | {"s3.txt": texts("expr")["s1.txt"]}, "not in the test list"),
    "too few rows": ("expr", changed("expr", "s1.txt", b"0\n", b""), "expected 3 rows"),
    "too many rows": ("expr", changed("expr", "s1.txt", b"0\n", b"0\n0\n"), "expected 3 rows"),
    "wrong header": ("expr", changed("expr", "s1.txt", b"Neutral", b"neutral"), "expected the header"),
    "class out of range": ("expr", changed("expr", "s1.txt", b"\n0\n", b"\n8\n"), "class in 0..7, got '8'"),
    "class is text": ("expr", changed("expr", "s1.txt", b"\n0\n", b"\nFear\n"), "class in 0..7"),
    "value out of range": ("va", changed("va", "s1.txt", b"0.000000", b"1.2"), "value in -1..1, got '1.2'"),
    "nan": ("va", changed("va", "s1.txt", b"0.000000", b"nan"), "value in -1..1, got 'nan'"),
    "unit is two": ("au", changed("au", "s1.txt", b"0,0", b"2,0"), "0 or 1"),
    "wrong delimiter": ("va", changed("va", "s1.txt", b"0,0", b"0;0"), "2 values separated by commas, got 1"),
    "CRLF": ("va", changed("va", "s1.txt", b"\n", b"\r\n", 9), "got CRLF"),
    "byte order mark": ("va", changed("va", "s1.txt", b"valence", b"\xef\xbb\xbfvalence"), "byte order mark"),
    "empty file": ("va", texts("va") | {"s1.txt": b""}, "got an empty file"),
    "header only": ("va", texts("va") | {"s1.txt": b"valence,arousal\n"}, "expected rows, got none"),
    "wrong suffix": ("va", {"s1.csv": texts("va")["s1.txt"]}, "ends with .txt"),
    "missing frame": (
        "mtl",
        changed("mtl", "MTL_predictions.txt", b"s2/00002", b"s2/00009"),
        "s2/00002.jpg is missing",
    ),
    "reordered": (
        "mtl",
        {
            "MTL_predictions.txt": b"\n".join(texts("mtl")["MTL_predictions.txt"].split(b"\n")[i] for i in (0, 2, 1, 3))
            + b"\n"
        },
        "order of the test list",
    ),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_broken_ones_are_rejected_with_the_cause(tmp_path, name):
    task, files, cause = BROKEN[name]
    faults = verify(tmp_path, files, task)
    assert any(cause in str(fault) for fault in faults), [str(fault) for fault in faults]


@pytest.mark.parametrize(
    ("name", "cause"),
    [("deeper/", "folder inside the zip"), ("../s1.txt", "a path inside the zip"), ("/s1.txt", "path")],
)
def test_what_a_zip_must_not_hold(tmp_path, name, cause):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file, data in texts("expr").items():
            archive.writestr(file, data)
        archive.writestr(name, b"")
    faults = verify(tmp_path, {}, "expr", raw=buffer.getvalue())
    assert [cause in fault.cause for fault in faults] == [True]


def test_a_subject_twice_in_the_zip(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for file in ("s1.txt", "s1.txt", "s2.txt"):
            archive.writestr(file, texts("expr")[file])
    assert "twice in the zip" in str(verify(tmp_path, {}, "expr", raw=buffer.getvalue())[0])


def test_line_numbers_are_those_of_the_file(tmp_path):
    (fault,) = verify(tmp_path, changed("au", "s2.txt", b"0\n0,", b"0\n5,"), "au")
    assert (fault.file, fault.line) == ("s2.txt", 3) and str(fault).startswith("s2.txt: line 3: ")


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="expected a submission"):
        verify_submission(tmp_path / "typo.zip")
    (tmp_path / "x.txt").write_text("hello\n")
    with pytest.raises(InputError, match="say --task"):
        verify_submission(tmp_path / "x.txt")
    (tmp_path / "empty").mkdir()
    assert verify_submission(tmp_path / "empty")[0].cause.startswith("expected text files")
