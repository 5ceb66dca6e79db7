from pathlib import Path

import pytest

from data_contracts.files.account import HIDDEN, InputAccount, is_harmless


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "._train01.txt", "Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir", ".git", "~$list.xlsx"],
)
def test_files_of_operating_systems_are_harmless(name):
    assert is_harmless(name) and is_harmless(name.upper())


@pytest.mark.parametrize("name", ["clip.mp4", "thumbs.mp4", "_underscore.mp4", "MACOSX", "batch3.zip", "00001.jpg"])
def test_other_files_matter(name):
    assert not is_harmless(name)


def test_an_account_keeps_numbers_and_three_examples_per_reason():
    account = InputAccount("videos", Path("data"))
    account.use(2)
    for number in range(5):
        account.skip(Path("data", f"{number}.xyz"), "not a video")
    account.skip(Path("data", "deep", ".DS_Store"))
    account.skip("data/notes.txt", "documents", harmless=True)
    assert (account.found, account.used, account.lost) == (9, 2, 5)
    assert account.skipped["not a video"].examples == ["0.xyz", "1.xyz", "2.xyz"]
    assert account.skipped[HIDDEN].examples == ["deep/.DS_Store"] and account.skipped[HIDDEN].is_harmless
    assert account.places == (str(Path("data").absolute()),)
    for number in range(50):
        account.note(str(number))
    assert len(account.notes) == 21
