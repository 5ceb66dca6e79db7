import pytest

from data_contracts.challenge.crops import list_crops
from data_contracts.challenge.editions import ABAW3_TEST_LISTS
from data_contracts.challenge.layout import find_data, subjects_of_videos
from data_contracts.errors import InputError


def put(root, *paths, text=""):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def test_official_layout(tmp_path):
    put(tmp_path, "videos/a.mp4", "videos/b.AVI", "videos/notes.txt", "videos/.hidden.mp4", "cropped/a/00001.jpg")
    put(tmp_path, "Third ABAW Annotations/VA_Estimation_Challenge/Train_Set/a.txt")
    put(tmp_path, f"names_of_videos_in_each_test_set/{ABAW3_TEST_LISTS['va']}")
    layout = find_data(tmp_path)
    assert sorted(layout.videos) == ["a", "b"] and list(layout.crops) == ["cropped"]
    assert layout.annotations_of("va").name == "VA_Estimation_Challenge" and list(layout.test_lists) == ["va"]
    with pytest.raises(InputError, match="EXPR_Classification_Challenge"):
        layout.annotations_of("expr")


def test_folder_of_videos_is_accepted(tmp_path):
    put(tmp_path, "x.mov", "y.mkv")
    assert sorted(find_data(tmp_path).videos) == ["x", "y"]


def test_batches_of_videos_are_merged(tmp_path):
    put(tmp_path, "batch1/x.mp4", "batch2/y.mp4")
    assert sorted(find_data(tmp_path).videos) == ["x", "y"]


def test_folder_without_data_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected videos, crops in cropped/ or .* found none$"):
        find_data(tmp_path)
    with pytest.raises(InputError, match="found nothing there"):
        find_data(tmp_path / "typo")
    put(tmp_path, "archives/.DS_Store", "archives/batch1.zip")
    with pytest.raises(InputError, match=r"found none; skipped 1 archives; unpack them: batch1\.zip$"):
        find_data(tmp_path / "archives")
    put(tmp_path, "file.mp4")
    with pytest.raises(InputError, match="found a file there"):
        find_data(tmp_path / "file.mp4")


@pytest.mark.parametrize(
    "place",
    [
        "Third ABAW Annotations/AU_Detection_Challenge/Train_Set/clip_left.txt",
        "cropped/clip_right/00001.jpg",
        "list",
        "mtl",
    ],
)
def test_videos_with_two_subjects_are_found_from_any_name(tmp_path, place):
    put(tmp_path, "videos/clip.mp4", "videos/other.mp4")
    if place == "list":
        put(tmp_path, ABAW3_TEST_LISTS["expr"], text="other\nclip_right,\n")
    elif place == "mtl":
        put(tmp_path, "A/MTL_Challenge/train_set.txt", text="image,valence\nclip_left/00001.jpg,0\n")
    else:
        put(tmp_path, place)
    assert subjects_of_videos(find_data(tmp_path)) == {"clip": ("clip_left", "clip_right")}


def test_folders_and_lists_of_later_editions(tmp_path):
    put(tmp_path, "Videos/batch1/a.mp4", "Videos/batch2/b.avi", "Videos/new_vids/451.mp4")
    put(tmp_path, "cropped/batch1/a/00001.jpg", "cropped_new_50_vids/451/00001.jpg", "cropped_new_50_vids/notes.txt")
    put(tmp_path, "cropped_aligned/a/00001.jpg", "cropped_aligned_new_50_vids/451/00001.jpg")
    put(tmp_path, "6th ABAW Annotations/EXPR_Recognition_Challenge/Train_Set/a.txt")
    put(tmp_path, "MTL/training_set_annotations.txt", "MTL/validation_set_annotations.txt")
    put(tmp_path, "test_set_examples/CVPR_6th_ABAW_Expr_test_set_example.txt", "lists/MTL.txt")
    put(tmp_path, "test_set_examples/CVPR_5th_ABAW_VA_test_set_sample.txt")
    layout = find_data(tmp_path)
    assert sorted(layout.videos) == ["451", "a", "b"]
    for source in ("cropped", "cropped_aligned"):
        assert sorted(list_crops(layout.crops[source]).subjects) == ["451", "a"]
    assert {task: layout.annotations_of(task).name for task in layout.annotations} == {
        "expr": "EXPR_Recognition_Challenge",
        "mtl": "MTL",
    }
    assert sorted(layout.test_lists) == ["expr", "mtl", "va"]
