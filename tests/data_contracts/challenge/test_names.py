import pytest

from data_contracts.challenge.names import describe_respelled, match_names, similar_names, subject_of_file

NFC, NFD = "Am\u00e9lie", "Ame\u0301lie"


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("a", "a"),
        (NFC, NFD),
        ("a.mp4", "a"),
        ("videos/a.MTS", "a"),
        ("C:\\videos\\a.avi ", "a"),
        ("A.txt", "a"),
        (f"x/{NFD.upper()}.Mov", NFC),
        ("a", "a.mp4"),
        ("40-30-1280x720", "40-30-1280x720"),
        ("a.264", "a.264"),
    ],
)
def test_a_name_is_matched_in_any_spelling(name, known):
    assert match_names([name], [known, "other"]) == {name: known}


def test_equal_names_win_and_doubtful_ones_match_nothing():
    assert match_names(["A", "a"], ["a"]) == {"a": "a"}
    assert match_names(["aa"], ["Aa", "aA"]) == {} and similar_names("aa", ["Aa", "aA", "b"]) == ["Aa", "aA"]
    assert match_names(["a.mp4", "a"], ["a", "a.mp4"]) == {"a.mp4": "a.mp4", "a": "a"}
    assert match_names(["a_left"], ["a"]) == {}


def test_other_spellings_are_described():
    assert describe_respelled({"a": "a"}) == ""
    line = describe_respelled({"b.mp4": "b", NFC: NFD})
    assert line.startswith("2 names are spelled differently") and f"{NFC} (another Unicode form)" in line
    assert "b.mp4 as b" in line


@pytest.mark.parametrize("name", ["video.1", "a.b.c", ".mp4", "a.264", "12-24-1920x1080_left"])
def test_a_name_without_a_suffix_of_a_video_is_kept(name):
    assert subject_of_file(name) == name
