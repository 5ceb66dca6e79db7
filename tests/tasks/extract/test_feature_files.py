"""Files of features that are damaged or ambiguous are refused in one line."""

import io
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.errors import InputError
from tasks.extract.feature_files import open_feature_file
from tasks.extract.import_features import survey_rows, unpack_file


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def damaged_npz():
    """An archive whose compressed values are no stream of zlib."""
    random = np.random.default_rng(0)
    data = npz(subject=np.array(["a"] * 99), frame=np.arange(1, 100), embedding=random.random((99, 9)))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = archive.getinfo("frame.npy").header_offset
    return data[: start + 60] + b"\xff" * 80 + data[start + 140 :]


def parquet(*names):
    buffer = io.BytesIO()
    pq.write_table(pa.table([pa.array(["a"]), *(pa.array([1.0]) for _ in names[1:])], names=list(names)), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"subject,frame,x,x\na,1,2,3\n", "columns with different names, got several named 'x'; rename"),
        ("a.csv", b"subject,frame, frame,x\na,1,2,3\n", "columns with different names, got several named 'frame'"),
        ("a.csv", b"subject,frame,x\n,1,2\n", "the name of a subject in every row, got an empty one"),
        ("a.csv", b",subject,frame,x\n0,a,1,2\n", "a name for every column, got none for column 1; remove it"),
        (
            "a.parquet",
            parquet("subject", "frame", "x", "__index_level_0__"),
            "a name for every column, got '__index_level_0__' for column 4",
        ),
        ("a.parquet", parquet("subject", "frame", "x", "x"), "columns with different names, got several named 'x'"),
        (
            "a.npz",
            npz(subject=np.array(["a"]), frame=np.array([1]), embedding=np.zeros((1, 0))),
            r"a column per number, got \(1, 0\)",
        ),
        ("a.npz", npz(subject=np.array([" "]), frame=np.array([1]), embedding=np.zeros((1, 2))), "got an empty one"),
        ("a.npz", damaged_npz(), "expected (a file that numpy.savez wrote|an array frame)"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        survey_rows(open_feature_file(path), {}, first_frame=1)
    assert str(caught.value).startswith(f"{path}: expected ") and "\n" not in str(caught.value)


def test_columns_whose_values_the_store_would_round_to_zero_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("subject,frame,x,y,z\na,1,0,1e-9,1\na,2,0,2e-9,1e-9\n")
    with pytest.raises(InputError, match="got at most 2e-09 in column 2 of the embedding; scale this column up"):
        unpack_file(open_feature_file(path), tmp_path)
