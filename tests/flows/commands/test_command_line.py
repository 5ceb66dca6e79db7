import pytest

from data_contracts.challenge.editions import ABAW3_TEST_LISTS

from tests.flows.conftest import run_command  # isort: skip


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--help"], 0, "Frame-level facial affect"),
        (["extract", "--help"], 0, "--store"),
        (["extrct"], 2, "No such command 'extrct'"),
        (["extract", "{tmp}", "--stor", "x"], 2, "No such option"),
        (["extract", "{tmp}", "--store", "{tmp}/s", "--limit", "0"], 2, "--limit"),
        (["status", "--store", "{tmp}"], 2, "expected a store of affwild2"),
        (["report", "--store", "{tmp}"], 2, "expected a store of affwild2"),
        (["verify", "{tmp}/typo.zip"], 2, "expected a submission"),
        (["extract", "{tmp}", "--store", "{tmp}/s"], 2, "expected videos"),
    ],
)
def test_answers_and_exit_codes(tmp_path, arguments, code, says):
    (tmp_path / "empty.txt").write_text("")
    finished = run_command(*[argument.format(tmp=tmp_path) for argument in arguments])
    assert finished.returncode == code
    printed = finished.stdout + finished.stderr
    assert says in printed and "Traceback" not in printed


def test_status_tells_what_is_ready_and_what_failed(demo):
    finished = run_command("status", "--store", demo.store)
    assert finished.returncode == 1
    for text in ("videos", "features", "emotion_lite0-", "heads: expr-default-", "failed: videos corrupt: "):
        assert text in finished.stdout


def test_verify_from_the_command_line(demo):
    path = next((demo.store / "submissions").glob("abaw3-va-*/abaw3_va.zip"))
    lists = demo.data / "names_of_videos_in_each_test_set"
    finished = run_command("verify", path, "--test-list", lists / ABAW3_TEST_LISTS["va"], "--videos", demo.data)
    assert finished.returncode == 0 and "no fault against test list and videos" in finished.stdout
    finished = run_command("verify", path, "--test-list", lists / ABAW3_TEST_LISTS["expr"], "--task", "expr")
    assert finished.returncode == 1 and "expected the header" in finished.stdout


def test_an_engine_that_is_not_one_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("AFFWILD2_ENGINE", "openvina")
    (tmp_path / "clip.mp4").write_bytes(b"a video, for all that is known yet")
    finished = run_command("score", tmp_path / "clip.mp4", "--out", tmp_path / "out")
    assert finished.returncode == 2
    assert finished.stderr.strip() == "affwild2: AFFWILD2_ENGINE: expected one of openvino, torch, got 'openvina'"
