"""Every task with every kind of test list and every edition: which submissions are written, and which are refused."""

import itertools

import pytest

from data_contracts.challenge.editions import ABAW3_TEST_LISTS, EDITIONS, TASKS_OF_EDITION, rows_by
from data_contracts.challenge.submissions import verify_submission
from data_contracts.challenge.test_lists import read_test_list
from data_contracts.errors import InputError
from data_contracts.vocabulary import TASKS

SUBJECTS = "one\ntwo\n"
VALUES = {"expr": "0", "va": "0.5,-0.5", "au": ",".join("0" * 12)}
HEADERS = {
    "expr": "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other",
    "va": "valence,arousal",
    "au": "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26",
}


def frames(header, values=""):
    return "".join(f"{line}\n" for line in (header, *(f"one/{n:05d}.jpg{values}" for n in (1, 2))))


# Kind of list -> name, content, task and edition; None: the list does not show it.
LISTS = {f"{task} subjects": (ABAW3_TEST_LISTS[task], SUBJECTS, task, None) for task in ("expr", "va", "au")}
LISTS |= {
    "subjects": ("list.txt", SUBJECTS, None, None),
    "frames": ("list.txt", frames("image_location,", ","), None, None),
    "copied va subjects": (ABAW3_TEST_LISTS["va"].replace(".txt", " (1).txt"), SUBJECTS, "va", None),
    "mtl of abaw3": (ABAW3_TEST_LISTS["mtl"], frames("image"), "mtl", "abaw3"),
    "mtl of abaw4": ("MTL_Challenge_test_set_release.txt", frames("image"), "mtl", "abaw4"),
    "mtl of abaw7": ("MTL.txt", frames("image,", ","), "mtl", None),
    "renamed mtl": ("list.txt", frames("image"), "mtl", None),
    "renamed mtl with columns": ("list.txt", frames("image,valence,arousal,expression,aus"), "mtl", None),
}
for number, task in itertools.product((5, 6, 8), VALUES):
    name = f"CVPR_{number}th_ABAW_{task.upper()}_test_set_sample.txt"
    content = frames(f"image_location,{HEADERS[task]}", "," if number == 5 else f",{VALUES[task]}")
    LISTS[f"{task} of abaw{number}"] = (name, content, task, f"abaw{number}")
for task in VALUES:
    LISTS |= {
        f"renamed {task}": ("list.txt", frames(f"image_location,{HEADERS[task]}", ","), task, None),
        f"renamed {task}, values only": ("list.txt", frames("image_location", f",{VALUES[task]}"), task, None),
    }


def expected(task, edition, kind):
    """Return the edition of the submission; None if it is refused."""
    _, content, shown, stated = LISTS[kind]
    by = "frame" if "/" in content else "subject"
    if shown not in (None, task) or (edition and stated and edition != stated):
        return None
    fitting = [e for e in EDITIONS if task in TASKS_OF_EDITION[e] and rows_by(e, task) == by]
    found = edition or stated or (fitting or [None])[-1]
    return found if found in fitting else None


@pytest.mark.parametrize("kind", LISTS)
def test_list_task_and_edition_belong_together(tmp_path, kind):
    name, content, *_ = LISTS[kind]
    (tmp_path / name).write_text(content)
    wanted = read_test_list(tmp_path / name)
    written = 0
    for task, edition in itertools.product(TASKS, (None, *EDITIONS)):
        found = expected(task, edition, kind)
        if found:
            written += 1
            assert wanted.choose_edition(task, edition) == found, (task, edition)
            continue
        with pytest.raises(InputError) as error:
            wanted.choose_edition(task, edition)
        assert "\n" not in str(error.value) and "expected" in str(error.value)
    assert written >= 1, "each official list has a legal use"


@pytest.mark.parametrize("kind", LISTS)
def test_verify_compares_the_task_of_the_submission_with_that_of_the_list(tmp_path, kind):
    name, content, shown, _ = LISTS[kind]
    (tmp_path / name).write_text(content)
    for task, header in HEADERS.items():
        submission = tmp_path / "submission"
        submission.mkdir(exist_ok=True)
        for path in submission.iterdir():
            path.unlink()
        if "/" in content:
            rows = frames(f"image_location,{header}", f",{VALUES[task]}")
            (submission / "predictions.txt").write_text(rows)
        else:
            for subject in SUBJECTS.split():
                (submission / f"{subject}.txt").write_text(f"{header}\n{VALUES[task]}\n")
        faults = [str(fault) for fault in verify_submission(submission, test_list=tmp_path / name)]
        if shown in (None, task):
            assert faults == []
        else:
            assert (
                len(faults) == 1
                and f"read as predictions of {task}, but " in faults[0]
                and f"one of {shown}" in faults[0]
            )


def test_a_list_that_contradicts_itself_or_has_an_edition_without_its_task_is_refused(tmp_path):
    wrong = {
        ABAW3_TEST_LISTS["va"]: frames(f"image_location,{HEADERS['expr']}"),
        "CVPR_5th_ABAW_VA_test_set_sample.txt": SUBJECTS,
        "CVPR_7th_ABAW_VA_test_set_sample.txt": frames("image_location,", ","),
    }
    for name, content in wrong.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError):
            read_test_list(tmp_path / name).choose_edition("va")
