import os
import unicodedata

import pytest

from data_contracts.challenge.crops import find_crop_folders, list_crops, subject_folders
from data_contracts.challenge.layout import find_data
from data_contracts.challenge.other_files import ARCHIVES, OTHER
from data_contracts.errors import InputError
from data_contracts.files.locations import location


def put(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("")


def frames(listing):
    return {subject: [crop.frame for crop in crops] for subject, crops in listing.subjects.items()}


def test_crops_are_sorted_by_frame_and_other_files_are_counted(tmp_path):
    put(tmp_path, "a/00002.jpg", "a/00010.JPG", "a/100000.jpeg", "a/7.png", "a/Thumbs.db", "b/note.txt", "c.jpg")
    put(tmp_path, "a/999999999.jpg", "a/frame_00003.jpg")
    os.mkfifo(tmp_path / "a" / "00004.jpg")
    listing = list_crops([tmp_path])
    assert frames(listing) == {"a": [2, 7, 10, 100000]} and listing.refused == {}
    counts = {reason: (one.count, one.examples) for reason, one in listing.account.skipped.items()}
    assert counts == {
        "files that are not named like crops (00001.jpg)": (2, ["c.jpg", "a/frame_00003.jpg"]),
        OTHER: (1, ["b/note.txt"]),
        "crops with a frame number above 5,000,000": (1, ["a/999999999.jpg"]),
        "broken links, pipes or devices": (1, ["a/00004.jpg"]),
        "hidden files and files of operating systems": (1, ["a/Thumbs.db"]),
    }
    assert (listing.account.used, listing.account.lost) == (4, 4)
    with pytest.raises(InputError, match=r"found no crop; skipped 1 files of other kinds"):
        list_crops([tmp_path / "b"])


def test_two_crops_of_one_frame_are_refused_by_name_and_other_subjects_are_used(tmp_path):
    put(tmp_path, "a/00001.jpg", "a/000001.jpg", "a/00002.jpg", "b/00001.jpg", "c/00005.jpg", "c/00005.png")
    listing = list_crops([tmp_path])
    assert frames(listing) == {"b": [1]} and sorted(listing.refused) == ["a", "c"]
    assert (
        listing.refused["a"].startswith(f"{tmp_path}/a/000001.jpg: ") and "also 00001.jpg for" in listing.refused["a"]
    )
    assert "00005.jpg" in listing.refused["c"] and "00005.png" in listing.refused["c"]
    assert (listing.account.used, listing.account.found, listing.account.lost) == (1, 6, 5)


def test_frame_0_is_refused_unless_crops_count_from_0(tmp_path):
    put(tmp_path, "a/00000.jpg", "a/00001.jpg", "b/00001.jpg")
    listing = list_crops([tmp_path])
    assert frames(listing) == {"b": [1]}
    assert "frames count from 1, found frame 0" in listing.refused["a"] and "--first-crop 0" in listing.refused["a"]
    assert frames(list_crops([tmp_path], first_crop=0)) == {"a": [1, 2], "b": [2]}


@pytest.mark.parametrize(
    "names",
    [
        ("cropped_aligned/cropped_aligned/a", "cropped_aligned/cropped_aligned_new_50_vids/b"),
        ("cropped_aligned/batch1/a", "cropped_aligned/batch2/b"),
        ("cropped_aligned/batch1/cropped_aligned/a", "cropped_aligned/batch2/part 3/b"),
        ("cropped_aligned/a", "cropped_aligned_new_50_vids/new_50_vids/b"),
        ("crops/cropped_aligned/a", "crops/Cropped_Aligned_new_50_vids/b"),
        ("batch1/cropped_aligned/a", "batch2/cropped_aligned/b"),
        ("cropped/cropped_aligned/a", "cropped/cropped_aligned_new_50_vids/b"),
    ],
)
def test_nested_release_folders_are_found(tmp_path, names):
    put(tmp_path, *(f"{name}/00001.jpg" for name in names), "videos/a.mp4")
    folders = find_data(tmp_path).crops["cropped_aligned"]
    assert frames(list_crops(folders)) == {"a": [1], "b": [1]}
    assert {"a", "b"} <= subject_folders(folders)


def test_nested_folders_of_another_source_stay_apart(tmp_path):
    put(tmp_path, "cropped/a/00001.jpg", "cropped/cropped_aligned/a/00002.jpg")
    found = find_crop_folders(tmp_path)
    assert frames(list_crops(found["cropped"])) == {"a": [1]}
    assert frames(list_crops(found["cropped_aligned"])) == {"a": [2]}


def test_crops_of_one_subject_in_two_folders_are_refused(tmp_path):
    put(tmp_path, "cropped/a/00001.jpg", "cropped_new_50_vids/a/00001.jpg", "cropped/b/00001.jpg")
    listing = list_crops(find_data(tmp_path).crops["cropped"])
    assert frames(listing) == {"b": [1]} and "crops of a subject in one folder" in listing.refused["a"]
    assert f"{tmp_path}/cropped/a" in listing.refused["a"] and "cropped_new_50_vids/a" in listing.refused["a"]


def test_subjects_are_compared_in_their_composed_form(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    put(tmp_path, f"{decomposed}/00001.jpg")
    listing = list_crops([tmp_path])
    assert list(listing.subjects) == [composed] and len(listing.account.notes) == 1
    put(tmp_path, f"{composed}/00002.jpg", "b/00001.jpg")
    listing = list_crops([tmp_path])
    assert list(listing.subjects) == ["b"]
    assert r"'cafe\u0301'" in listing.refused[composed] and r"'caf\xe9'" in listing.refused[composed]


def test_links_that_lead_back_are_not_followed(tmp_path):
    put(tmp_path, "a/00001.jpg")
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    listing = list_crops([tmp_path])
    assert frames(listing) == {"a": [1]} and listing.account.lost == 0


def test_nested_crops_on_s3(s3_bucket):
    root = location(f"{s3_bucket}/data")
    names = ("cropped_aligned/a/00001.jpg", "batch1/b_left/00002.png", "b1/__MACOSX/x/00001.jpg", "notes.txt")
    for name in names:
        (root / "cropped_aligned" / name).write_bytes(b"x")
    folders = find_data(root).crops["cropped_aligned"]
    listing = list_crops(folders)
    assert frames(listing) == {"a": [1], "b_left": [2]} and (listing.account.found, listing.account.lost) == (4, 0)
    assert {"a", "b_left"} <= subject_folders(folders)


@pytest.mark.parametrize("name", ["cropped", "Cropped", "cropped (1)", "cropped - Copy", "cropped 2", "a/b/c/cropped"])
def test_folders_of_crops_are_found_by_name_at_four_levels(tmp_path, name):
    put(tmp_path, f"{name}/a/00001.jpg", "store/_code_versions.json", "store/faces/source=x/video=a/0.parquet")
    put(tmp_path, "batch1/cropped_2023/b/00001.jpg")
    assert find_data(tmp_path).crops == {"cropped": (tmp_path / name,)}


def test_a_folder_of_crops_may_be_the_data_folder(tmp_path):
    put(tmp_path, "cropped_aligned/a/00001.jpg")
    assert find_data(tmp_path / "cropped_aligned").crops == {"cropped_aligned": (tmp_path / "cropped_aligned",)}


def test_documents_beside_crops_are_harmless_and_empty_folders_are_listed(tmp_path):
    put(tmp_path, "a/00001.jpg", "a/landmarks.npy", "readme.txt", "README", "a.zip", ".DS_Store")
    (tmp_path / "b").mkdir()
    account = list_crops([tmp_path]).account
    assert account.lost == 0 and account.skipped["folders without any file"].examples == ["b"]
    put(tmp_path, "b.zip", "c.zip", "a/00002.jpg.part", "a/00003", "a/00004 (1).jpg")
    account = list_crops([tmp_path]).account
    assert account.lost == 4 and account.skipped[ARCHIVES].examples == ["c.zip"]
