import pytest

from data_contracts.challenge.text_files import MAX_TEXT_BYTES, read_lines
from data_contracts.errors import InputError


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n\n", []),
        (b"a\nb", ["a", "b"]),
        (b"\xef\xbb\xbfa\r\n\r\nb\r\n\r\n", ["a", "", "b"]),
        ("a\x0cb\u2028c\x85d\ne".encode(), ["a\x0cb\u2028c\x85d", "e"]),
    ],
)
def test_only_line_feeds_end_lines(tmp_path, data, lines):
    (tmp_path / "f").write_bytes(data)
    assert read_lines(tmp_path / "f", "labels") == lines


def test_binary_data_is_refused_with_its_line(tmp_path):
    (tmp_path / "f").write_bytes(b"a\nb\n\xff\n")
    with pytest.raises(InputError, match="f: line 3: expected UTF-8 text with labels"):
        read_lines(tmp_path / "f", "labels")
    (tmp_path / "f").write_bytes(b"a\0b")
    with pytest.raises(InputError, match="got binary data"):
        read_lines(tmp_path / "f", "labels")
    with pytest.raises(InputError, match="got: No such file"):
        read_lines(tmp_path / "g", "labels")
    with pytest.raises(InputError, match="got: Is a directory"):
        read_lines(tmp_path, "labels")


def test_too_large_file_is_not_read(tmp_path):
    with open(tmp_path / "f", "wb") as file:
        file.truncate(MAX_TEXT_BYTES + 1)
    with pytest.raises(InputError, match="got 268,435,457 bytes"):
        read_lines(tmp_path / "f", "labels")
