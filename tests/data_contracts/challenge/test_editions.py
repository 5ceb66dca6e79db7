from pathlib import Path

import pytest

from data_contracts.challenge.editions import (
    ABAW3_FOLDERS,
    ABAW3_TEST_LISTS,
    challenge_of_folder,
    check_edition,
    edition_of_list,
    submission_header,
    task_of_test_list,
)
from data_contracts.errors import InputError


def test_names_of_folders_and_lists_of_every_edition_are_recognized():
    assert {challenge_of_folder(name): task for task, name in ABAW3_FOLDERS.items()} == {t: t for t in ABAW3_FOLDERS}
    assert {task_of_test_list(name) for name in ABAW3_TEST_LISTS.values()} == set(ABAW3_TEST_LISTS)
    assert challenge_of_folder("EXPR_Recognition_Challenge") == "expr" and challenge_of_folder("videos") is None
    for name, task in {
        "CVPR_5th_ABAW_EXPR_test_set_sample.txt": "expr",
        "CVPR_6th_ABAW_Expr_test_set_example.txt": "expr",
        "CVPR_6th_ABAW_AU_test_set_sample.txt": "au",
        "Expression_Recognition_Challenge_test_set_release.txt": "expr",
        "MTL_Challenge_test_set_release.txt": "mtl",
        "MTL.txt": "mtl",
        "notes.txt": None,
    }.items():
        assert task_of_test_list(name) == task


@pytest.mark.parametrize(
    ("name", "task", "by", "edition"),
    [
        ("anything.txt", "va", "subject", "abaw3"),
        ("CVPR_5th_ABAW_VA_test_set_sample.txt", "va", "frame", "abaw5"),
        ("CVPR_6th_ABAW_Expr_test_set_example.txt", "expr", "frame", "abaw6"),
        ("CVPR_99th_ABAW_AU_test_set_sample.txt", "au", "frame", "abaw8"),
        ("sample.txt", "au", "frame", "abaw8"),
        (ABAW3_TEST_LISTS["mtl"], "mtl", "frame", "abaw3"),
        ("MTL_Challenge_test_set_release.txt", "mtl", "frame", "abaw4"),
        ("MTL.txt", "mtl", "frame", "abaw7"),
    ],
)
def test_edition_is_found_from_the_name_of_the_list(name, task, by, edition):
    assert edition_of_list(Path(name), task, by) == edition
    check_edition(edition, task, by, Path(name))


def test_headers_of_every_task():
    assert submission_header("va", "subject") == "valence,arousal"
    assert submission_header("va", "frame") == "image_location,valence,arousal"
    assert submission_header("mtl", "frame") == "image,valence,arousal,expression,aus"


@pytest.mark.parametrize(
    ("edition", "task", "by", "message"),
    [
        ("abaw7", "va", "frame", "abaw7: expected one of its tasks .mtl., got va"),
        ("abaw3", "va", "frame", "l.txt: expected a list of subjects for abaw3 va, got a list of frames"),
        ("abaw6", "va", "subject", "l.txt: expected a list of frames .* for abaw6 va, got a list of subjects"),
    ],
)
def test_list_of_another_edition_is_refused(edition, task, by, message):
    with pytest.raises(InputError, match=message):
        check_edition(edition, task, by, Path("l.txt"))
