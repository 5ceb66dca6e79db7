import pytest

from data_contracts.errors import InputError
from data_contracts.test_lists import is_plain_name, read_mtl_list, read_subject_list


def write(tmp_path, text):
    path = tmp_path / "list.txt"
    path.write_bytes(text.encode())
    return path


def test_subjects_in_order(tmp_path):
    assert read_subject_list(write(tmp_path, "b\r\na_left,\r\n\r\n40-30-1280x720\n")) == [
        "b",
        "a_left",
        "40-30-1280x720",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found none"),
        ("a\na\n", "line 2: expected each subject once"),
        ("a\n../b\n", "line 2: expected the name"),
        ("/etc/passwd\n", "line 1: expected the name"),
        ("-rf\n", "line 1: expected the name"),
    ],
)
def test_bad_subject_lists(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_subject_list(write(tmp_path, text))


def test_frames_in_order_with_and_without_header(tmp_path):
    rows = [("v", 3), ("v", 1), ("v", 3), ("w_right", 100000)]
    text = "v/00003.jpg\nv/00001.jpg,\nv/00003.jpg\nw_right/100000.jpg\n"
    assert read_mtl_list(write(tmp_path, text)) == rows
    assert read_mtl_list(write(tmp_path, "image,\n" + text)) == rows


@pytest.mark.parametrize("text", ["image\n", "v/00000.jpg", "v00001.jpg", "../v/00001.jpg", "v/00001.png"])
def test_bad_frame_lists(tmp_path, text):
    with pytest.raises(InputError, match="expected"):
        read_mtl_list(write(tmp_path, text))


def test_missing_or_binary_file(tmp_path):
    with pytest.raises(InputError, match="expected a text file"):
        read_subject_list(tmp_path / "typo.txt")
    (tmp_path / "bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="expected a text file"):
        read_mtl_list(tmp_path / "bin")


@pytest.mark.parametrize(
    ("name", "plain"), [("a b", True), ("ü", True), ("", False), (".a", False), ("a\\b", False), ("a\n", False)]
)
def test_plain_names(name, plain):
    assert is_plain_name(name) is plain
