import pytest

from data_contracts.challenge.test_lists import is_plain_name, names_in_list, read_test_list
from data_contracts.errors import InputError


def write(tmp_path, text, name="list.txt"):
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


def test_subjects_keep_the_order_of_the_list(tmp_path):
    found = read_test_list(write(tmp_path, "b\r\na_left,\r\n\r\n40-30-1280x720\n"))
    assert found.subjects == ("b", "a_left", "40-30-1280x720") and found.rows_by == "subject"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found none"),
        ("\n\n", "found none"),
        ("a\na\n", "line 2: expected each subject once, got 'a' also in line 1"),
        ("a\n../b\n", "line 2: expected the name"),
        ("a\n/etc/passwd\n", "line 2: expected the name"),
        ("/etc/passwd\n", "line 1: expected subject/00001.jpg"),
        ("-rf\n", "line 1: expected the name"),
        ("a\n,b\n", "line 2: expected a name first"),
    ],
)
def test_invalid_subject_lists_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_test_list(write(tmp_path, text))


@pytest.mark.parametrize("header", ["", "image\n", "image,\n", "image_location,valence,arousal\n"])
@pytest.mark.parametrize("values", ["", ",", ",0", ",0.5,-0.5", "," + ",".join("0" * 12)])
def test_frames_keep_the_order_of_the_list_and_values_are_ignored(tmp_path, header, values):
    names = ["v/00003.jpg", "v/00001.jpg", "v/00003.jpg", "w_right/100000.jpg", "v/00002.JPEG"]
    found = read_test_list(write(tmp_path, header + "".join(f"{name}{values}\r\n" for name in names)))
    assert found.images == tuple(names) and found.rows_by == "frame"
    assert found.subjects == ("v", "w_right")
    assert found.subject_of_row.tolist() == [0, 0, 0, 1, 0]
    assert found.frame_of_row.tolist() == [3, 1, 3, 100000, 2]


@pytest.mark.parametrize(
    "text", ["image\n", "v/00000.jpg", "../v/00001.jpg", "v/00001.txt", "..//00001.jpg", "v/x.jpg"]
)
def test_invalid_frame_lists_are_refused(tmp_path, text):
    with pytest.raises(InputError, match="expected"):
        read_test_list(write(tmp_path, text))


def test_missing_and_binary_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="expected a text file"):
        read_test_list(tmp_path / "typo.txt")
    (tmp_path / "bin").write_bytes(b"a\n\xff\xfe\n")
    with pytest.raises(InputError, match="line 2: expected UTF-8"):
        read_test_list(tmp_path / "bin")
    (tmp_path / "bin").write_bytes(b"a\0b")
    with pytest.raises(InputError, match="got binary data"):
        read_test_list(tmp_path / "bin")


@pytest.mark.parametrize(
    ("name", "plain"),
    [("a b", True), ("ü", True), ("", False), (".a", False), ("a\\b", False), ("a\n", False), ("x" * 201, False)],
)
def test_names_of_subjects_that_are_safe_as_file_names(name, plain):
    assert is_plain_name(name) is plain


@pytest.mark.parametrize(
    ("line", "subject"),
    [
        ("a.mp4", "a"),
        ("videos/a.mp4", "a"),
        ("videos\\a_left.AVI", "a_left"),
        ("/data/batch1/a.MTS,", "a"),
        ("./videos/a", "a"),
        ("\ufeffa.mp4 \t", "a"),
        ("a.txt", "a"),
        ("a.264", "a.264"),
    ],
)
def test_file_names_of_videos_stand_for_their_subjects(tmp_path, line, subject):
    found = read_test_list(write(tmp_path, f"{line}\r\nb\r\n"))
    assert found.subjects == (subject, "b") and found.rows_by == "subject"
    plain = line.strip("\ufeff \t,")
    assert found.spellings == ({subject: plain} if subject != plain else {})
    with pytest.raises(InputError, match="expected each subject once"):
        read_test_list(write(tmp_path, f"{line}\n{subject}\n"))


def test_frames_keep_the_spelling_of_the_list(tmp_path):
    names = ["videos/a.mp4/00001.jpg", "a/00002.jpg", "b.AVI/00001.png"]
    found = read_test_list(write(tmp_path, "\n".join(["image_location,x", *names])))
    assert found.images == tuple(names) and found.subjects == ("a", "b") and found.subject_of_row.tolist() == [0, 0, 1]


def test_names_in_lists_of_any_kind(tmp_path):
    assert names_in_list(write(tmp_path, "image\na.mp4/00001.jpg,0\nvideos/b.mp4\nc_left,\n")) >= {"a", "b", "c_left"}
