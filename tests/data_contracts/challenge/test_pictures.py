import os
from pathlib import Path

import pytest

from data_contracts.challenge import pictures as module
from data_contracts.challenge.pictures import ScheduledAccount, list_media, read_pictures
from data_contracts.challenge.videos import list_videos
from data_contracts.errors import InputError
from data_contracts.files.account import HIDDEN
from data_contracts.files.locations import location
from data_contracts.store.input_accounts import InputsDetails


def written(tmp_path, text, name="labels.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_labels_file(tmp_path):
    path = written(tmp_path, "image,identity,expression,valence,arousal\na.jpg,ann,happiness,0.5,-0.25\nb/c.png,,,,\n")
    first, second = read_pictures(path).pictures
    assert (first.path, first.identity, first.expression) == (tmp_path / "a.jpg", "ann", "Happiness")
    assert first.valence_arousal == (0.5, -0.25)
    assert (second.path, second.identity, second.expression, second.valence_arousal) == (
        tmp_path / "b" / "c.png", None, None, None
    )  # fmt: skip


def test_spaces_around_names_of_columns_and_people_do_not_matter_and_other_columns_are_named(tmp_path):
    path = written(tmp_path, "image, identity, expression,mood,\na.jpg,ann , Fear,x,\n\nb.jpg,ann,,,\n")
    listing = read_pictures(path)
    assert [(one.identity, one.expression) for one in listing.pictures] == [("ann", "Fear"), ("ann", None)]
    assert listing.account.notes[0].startswith("columns that are not used: 'mood'")


def test_affectnet_csv(tmp_path):
    header = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal\n"
    path = written(tmp_path, header + "1/x.jpg,10,20,100,120,1;2,6,-0.5,0.7\n2/y.jpg,0,0,50,50,,9,-2,-2\n")
    first, second = read_pictures(path, images=Path("/pictures")).pictures
    assert first.path == Path("/pictures/1/x.jpg") and first.expression == "Anger"
    assert first.box_xyxy_px == (10, 20, 110, 140) and first.valence_arousal == (-0.5, 0.7)
    assert second.expression is None and second.valence_arousal is None


def test_folder_with_one_folder_per_person_and_the_account_of_all_files(tmp_path):
    names = ("ann/1.jpg", "bob/2.PNG", "bob/notes.txt", ".hidden/3.jpg", "__MACOSX/ann/._1.jpg", "bob/._2.PNG")
    for name in (*names, "bob/4.heic", "bob/deep/5.jpg", "labels.csv", "loose.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    listing = read_pictures(tmp_path)
    assert [(p.identity, p.path.name) for p in listing.pictures] == [("ann", "1.jpg"), ("bob", "2.PNG")]
    skipped = {reason: (one.count, one.examples) for reason, one in listing.account.skipped.items()}
    assert skipped == {
        HIDDEN: (3, [".hidden", "__MACOSX", "bob/._2.PNG"]),
        module._OTHER_FILES: (1, ["bob/notes.txt"]),
        module._OTHER_BESIDE: (1, ["labels.csv"]),
        module._OTHER_PICTURES: (1, ["bob/4.heic"]),
        module._INSIDE: (1, ["bob/deep"]),
        module._BESIDE: (1, ["loose.jpg"]),
    }
    assert (listing.account.used, listing.account.lost) == (2, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("picture,mood\nx,y\n", "expected a column image"),
        ("image,expression\na.jpg,bored\n", "line 2: expected one of anger"),
        ("image,valence,arousal\na.jpg,x,0\n", "line 2: could not convert"),
        ("image\n", "found only the header"),
        ("image,expression\n,anger\n", "line 2: expected the name of a picture"),
        ("image,expression\ra.jpg,anger\r", "line 1: new-line character"),
        ("image,image\na.jpg,b.jpg\n", "line 1: expected columns with different names, got several named 'image'"),
        ("image,expression\na.jpg\n", "line 2: expected 2 values, as in line 1, got 1"),
        ("image,expression\na.jpg,fear,1\n", "line 2: expected 2 values, as in line 1, got 3"),
        ('image,expression\n"a.jpg,fear\nb.jpg,fear\n', "line 3: unexpected end of data"),
        (
            "image,valence,arousal\na.jpg,0.5,2\n",
            "line 2: expected valence and arousal in -1..1, or neither, got '0.5'",
        ),
        ("image,valence,arousal\na.jpg,0.5,\n", "line 2: expected valence and arousal in -1..1, or neither"),
        (
            "subDirectory_filePath,face_x,face_y,face_width,face_height,expression\na.jpg,nan,0,9,9,1\n",
            "line 2: expected a box of a face, got nan, 0, 9, 9",
        ),
    ],
)
def test_unreadable_labels_are_reported_in_one_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read_pictures(written(tmp_path, text))
    assert "\n" not in str(caught.value) and "labels.csv" in str(caught.value)


def test_missing_pictures_are_refused(tmp_path):
    with pytest.raises(InputError, match="found nothing there"):
        read_pictures(tmp_path / "typo.csv")
    with pytest.raises(InputError, match="expected one folder per person"):
        read_pictures(tmp_path)


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"not read")


def found_in(*places):
    listing = list_media(places)
    return sorted(listing.videos.videos), [Path(path).name for path in listing.images], listing


def test_images_beside_videos_are_ignored_unless_they_are_named(tmp_path):
    make(tmp_path, "lab/clip.mp4", "lab/thumbs/clip.jpg", "photos/a.jpg", "photos/sub/b.tga", "photos/notes.txt")
    assert found_in(tmp_path / "photos")[:2] == ([], ["a.jpg", "b.tga"])
    videos, images, listing = found_in(tmp_path / "lab")
    assert (videos, images, listing.account) == (["clip"], [], None)
    (line,) = InputsDetails.of_account(listing.videos.account).format_lines()[1:]
    assert line.startswith("videos: 1 ignored, images in a folder with videos; to score them, name the files")
    assert found_in(tmp_path)[:2] == (["clip"], [])
    assert found_in(tmp_path / "lab", tmp_path / "photos")[:2] == (["clip"], ["a.jpg", "b.tga"])
    assert found_in(tmp_path / "lab", tmp_path / "lab/thumbs/clip.jpg")[:2] == (["clip"], ["clip.jpg"])


@pytest.mark.parametrize("place", ["", "cropped_aligned", "cropped_aligned/clip"])
def test_official_crops_are_not_scored_as_images(tmp_path, place):
    make(tmp_path, *(f"cropped_aligned/clip/{number:05d}.jpg" for number in range(1, 4)))
    _, images, listing = found_in(tmp_path / place)
    assert not images
    assert listing.account is None or listing.account.lost == 3
    make(tmp_path, "faces/ann.jpg")
    assert found_in(tmp_path / "faces")[1] == ["ann.jpg"]


def test_pipes_are_not_opened(tmp_path):
    make(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    _, images, listing = found_in(tmp_path)
    assert images == ["a.jpg"] and listing.videos.account.lost == 1


def test_formats_that_are_not_read_are_reported(tmp_path):
    make(tmp_path, "a.jpg", "b.heic", "c.CR2")
    _, images, listing = found_in(tmp_path)
    assert images == ["a.jpg"] and listing.account.lost == 2
    with pytest.raises(InputError, match=r"b\.heic: expected an image that can be read, got \.heic; convert it"):
        list_media([tmp_path / "b.heic"])


def test_images_whose_path_is_not_utf8_are_refused_by_name_and_reported_in_folders(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg"))
    path.write_bytes(b"")
    make(tmp_path, "a.jpg")
    _, images, listing = found_in(tmp_path)
    assert images == ["a.jpg"] and listing.account.lost == 1
    with pytest.raises(InputError, match="expected an image whose path is UTF-8, got other bytes; rename it"):
        list_media([path])


def test_images_on_s3_are_found_as_on_a_disk(s3_bucket):
    place = location(f"{s3_bucket}/data")
    for name in ("photos/a.jpg", "photos/sub/a.jpg", "photos/b.heic", "lab/clip.mp4", "lab/thumb.jpg"):
        (place / name).write_bytes(b"not read")
    videos, images, listing = found_in(place / "photos", place / "lab")
    assert videos == ["clip"] and images == ["a.jpg", "a.jpg"]
    assert list(listing.images) == [f"{s3_bucket}/data/photos/a.jpg", f"{s3_bucket}/data/photos/sub/a.jpg"]
    assert listing.account.lost == 1 and listing.videos.account.lost == 0
    assert found_in(place / "lab/thumb.jpg", place / "lab")[:2] == (["clip"], ["thumb.jpg"])


def test_a_scheduled_run_names_images_as_such(tmp_path):
    make(tmp_path, "clip.mp4", "a.jpg", "b.heic", "c.jp2", "notes.txt")
    (tmp_path / "c.jp2").write_bytes(b"\0\0\0\x0cjP  ")
    account = list_videos([tmp_path], account=ScheduledAccount("videos", tmp_path)).account
    lines = InputsDetails.of_account(account).format_lines()
    assert account.lost == 0 and "3 ignored, images, which are not scored on a schedule; affwild2 score" in lines[1]
    assert "1 ignored, files of other kinds" in lines[2]
