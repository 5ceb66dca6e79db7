import pytest

from data_contracts.challenge.layout import find_data, subjects_of_videos
from data_contracts.errors import InputError


def put(root, *paths, text=""):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


@pytest.mark.parametrize(
    "places",
    [
        ("Third ABAW Annotations/EXPR_Classification_Challenge", "6th ABAW Annotations/EXPR_Recognition_Challenge"),
        ("EXPR_Classification_Challenge", "EXPR_Classification_Challenge (1)"),
        ("annotations/EXPR_Classification_Challenge", "annotations (1)/EXPR_Classification_Challenge"),
        (
            "a/b/EXPR Recognition Challenge",
            "Expression_Classification_Challenge",
            "c/EXPR_Classification_Challenge_old",
        ),
        ("EXPR_Classification_Challenge", "5th_ABAW_Annotations/5th_ABAW_Annotations/EXPR_Classification_Challenge"),
    ],
)
def test_several_releases_are_refused_with_all_candidates(tmp_path, places):
    put(tmp_path, *(f"{place}/Train_Set/a.txt" for place in places), "VA_Estimation_Challenge/Train_Set/a.txt")
    layout = find_data(tmp_path)
    with pytest.raises(InputError, match=f"one folder of annotations of expr, found {len(places)}: .* --annotations"):
        layout.annotations_of("expr")
    for place in places:
        with pytest.raises(InputError, match=str(tmp_path / place).replace("(", r"\(").replace(")", r"\)")):
            layout.annotations_of("expr")
        assert find_data((tmp_path / place).parent if "(1)" not in place else tmp_path / place).annotations["expr"]
    assert layout.annotations_of("va").name == "VA_Estimation_Challenge"


def test_several_multi_task_lists_are_refused(tmp_path):
    put(tmp_path, "MTL_Challenge/train_set.txt", "s-Aff-Wild2/training_set_annotations.txt")
    with pytest.raises(InputError, match=r"found 2: .*MTL_Challenge, .*s-Aff-Wild2; pass"):
        find_data(tmp_path).annotations_of("mtl")


def test_folders_of_macos_empty_folders_links_and_stores_are_not_candidates(tmp_path):
    real = "annotations/EXPR_Classification_Challenge"
    put(tmp_path, f"{real}/Train_Set/a.txt", "__MACOSX/EXPR_Classification_Challenge/Train_Set/._a.txt")
    put(tmp_path, ".Trash/EXPR_Classification_Challenge/Train_Set/a.txt", "store/labels/task=expr/train_set.txt")
    (tmp_path / "EXPR_Recognition_Challenge").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "annotations")
    layout = find_data(tmp_path)
    assert layout.annotations_of("expr").samefile(tmp_path / real) and list(layout.annotations) == ["expr"]


def test_a_release_inside_a_folder_of_the_same_name_is_found(tmp_path):
    put(tmp_path, "EXPR_Classification_Challenge/EXPR_Classification_Challenge/Train_Set/a.txt")
    assert find_data(tmp_path).annotations_of("expr").parent.name == "EXPR_Classification_Challenge"


def test_packed_annotations_are_named(tmp_path):
    put(tmp_path, "a.mp4", "Third ABAW Annotations.zip")
    with pytest.raises(InputError, match=r"unpack the zip files that contain them \(Third ABAW Annotations.zip\)"):
        find_data(tmp_path).annotations_of("expr")


@pytest.mark.parametrize("names", [(), ("MTL.txt",), ("MTL.txt", "MTL (1).txt"), ("MTL.txt", "Copy of MTL.txt")])
def test_one_test_list_is_found_and_several_are_refused(tmp_path, names):
    put(tmp_path, "a.mp4", *names, text="a/00001.jpg\n")
    if len(names) == 1:
        assert find_data(tmp_path).test_list_of("mtl").name == "MTL.txt"
        return
    with pytest.raises(InputError, match=r"expected one test list of mtl .* --test-list") as caught:
        find_data(tmp_path).test_list_of("mtl")
    assert all(name in str(caught.value) for name in names)


@pytest.mark.parametrize("damage", ["not a folder", "loop", "set is a file", "set loops", "list is damaged"])
def test_extraction_does_not_ignore_names_that_it_cannot_read(tmp_path, damage):
    put(tmp_path, "videos/a.mp4")
    challenge = tmp_path / "EXPR_Classification_Challenge"
    if damage == "not a folder":
        challenge.write_text("")
    elif damage == "loop":
        challenge.symlink_to(challenge)
    elif damage == "list is damaged":
        (tmp_path / "MTL.txt").write_bytes(b"a\0")
    else:
        challenge.mkdir()
        if damage == "set is a file":
            (challenge / "Train_Set").write_text("")
        else:
            (challenge / "Train_Set").symlink_to(challenge / "Train_Set")
    with pytest.raises(InputError, match=r"expected a (folder of annotations that can be read|text file)"):
        subjects_of_videos(find_data(tmp_path))


def test_sides_are_found_under_another_unicode_form_of_the_name(tmp_path):
    put(tmp_path, "videos/Ame\u0301lie.mp4", "EXPR_Classification_Challenge/Train_Set/Am\u00e9lie_left.txt")
    assert subjects_of_videos(find_data(tmp_path)) == {"Am\u00e9lie": ("Am\u00e9lie_left", "Am\u00e9lie_right")}
