import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from data_contracts.challenge.editions import ABAW3_TEST_LISTS
from flows.commands.command_line import app
from tests import processes
from tests.flows.commands.test_models import run_command

ROOT = Path(__file__).parents[3]


def find_command(words):
    """Return the command that the words name, and its arguments."""
    command, arguments = app, list(words)
    while isinstance(command, click.Group) and arguments:
        command = command.commands[arguments.pop(0)]
    return command, arguments


def all_commands(group=app):
    for command in group.commands.values():
        yield from all_commands(command) if isinstance(command, click.Group) else [command]


def documented_commands():
    """Yield every affwild2 command of the code blocks in the documents."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.M | re.S):
            for line in block.replace("\\\n", " ").splitlines():
                # Other commands of the shell may have quotes that end on another line.
                if re.match(r"(\.venv/bin/)?affwild2 [^-]", line):
                    words = shlex.split(line, comments=True)[1:]
                    # What follows is a command of another program.
                    yield page.name, words[: words.index("|")] if "|" in words else words


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--help"], 0, "Frame-level facial affect"),
        (["extract", "--help"], 0, "--store"),
        (["--version"], 0, "version 0."),
        (["extrct"], 2, "No such command 'extrct'. Did you mean 'extract'?"),
        (["extract", "a", "b", "--store", "s"], 2, "Got unexpected extra argument (b). Run affwild2 extract --help"),
        (["extract", "{tmp}", "--stor", "x"], 2, "No such option '--stor'. (Did you mean"),
        (["fit", "expr", "--backbone", "x"], 2, "No such option '--backbone'. Use --features-variant."),
        (["fit", "expr", "--kind", "typo"], 2, "'typo' is not one of 'mlp'"),
        (
            ["score", "{tmp}", "--out", "{tmp}/o", "--dask-address", "http://host:8787"],
            2,
            "affwild2 score: Invalid value for '--dask-address': expected the address of a Dask scheduler such as "
            "tcp://HOST:8786, with tcp or tls, got 'http://host:8787'. Run affwild2 score --help",
        ),
        (["extract", "{tmp}", "--store", "{tmp}/s", "--limit", "0"], 2, "--limit"),
        (["extract", "{tmp}/empty", "--store", "{tmp}/s"], 2, "expected videos"),
    ],
)
def test_answers_and_exit_codes(tmp_path, arguments, code, expected):
    (tmp_path / "empty").mkdir()
    finished = processes.run_command(*[argument.format(tmp=tmp_path) for argument in arguments])
    assert finished.returncode == code
    printed = finished.stdout + finished.stderr
    assert expected in printed and "Traceback" not in printed


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["score", "{tmp}/clip.mp4", "--out", "{tmp}/o", "--backbone", "typo"], "--backbone typo: expected a name"),
        (["status", "--store", "{tmp}"], "expected a store of affwild2"),
        (["report", "--store", "{tmp}"], "expected a store of affwild2"),
        (["verify", "{tmp}/typo.zip"], "expected a submission"),
    ],
)
def test_refusals_are_one_line(tmp_path, arguments, expected):
    (tmp_path / "clip.mp4").write_text("")
    finished = run_command(*[argument.format(tmp=tmp_path) for argument in arguments])
    (line,) = finished.stderr.splitlines()
    assert finished.exit_code == 2 and expected in line and not finished.stdout


def test_status_lists_ready_and_failed_units(demo):
    finished = run_command("status", "--store", demo.store)
    assert finished.exit_code == 1
    for text in ("videos", "features", "emotion_lite0-", "heads: expr-default-", "failed: videos corrupt: "):
        assert text in finished.stdout


def test_verify_from_the_command_line(demo):
    path = next((demo.store / "submissions").glob("abaw3-va-*/abaw3_va.zip"))
    lists = demo.data / "names_of_videos_in_each_test_set"
    finished = run_command("verify", path, "--test-list", lists / ABAW3_TEST_LISTS["va"], "--videos", demo.data)
    assert finished.exit_code == 0 and "no fault against test list and videos" in finished.stdout
    finished = run_command("verify", path, "--test-list", lists / ABAW3_TEST_LISTS["expr"], "--task", "expr")
    assert finished.exit_code == 1 and "expected the header" in finished.stdout


def test_an_unknown_engine_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("AFFWILD2_ENGINE", "openvina")
    (tmp_path / "clip.mp4").write_bytes(b"not decoded before the settings are read")
    finished = run_command("score", tmp_path / "clip.mp4", "--out", tmp_path / "out")
    assert finished.exit_code == 2
    assert finished.stderr.strip() == "affwild2: AFFWILD2_ENGINE: expected one of openvino, torch, got 'openvina'"


def test_the_help_lists_every_command_once_with_its_whole_description():
    sections = CliRunner().invoke(app, ["--help"], terminal_width=80).output.partition("Predictions:")[2]
    assert sorted(re.findall(r"^  ([a-z-]+) {2,}\S", sections, re.M)) == sorted(app.commands)
    assert "..." not in sections


def test_help_imports_nothing_heavy():
    heavy = {"asyncio", "numpy", "prefect", "psutil", "pyarrow", "pydantic", "rich", "s3fs", "sklearn", "torch"}
    code = f"import sys, flows.commands.command_line; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize("command", list(all_commands()), ids=lambda command: command.name)
def test_every_command_describes_its_options_and_has_examples_that_it_accepts(command):
    assert all(len(parameter.help) > 10 for parameter in command.params), command.name
    examples = re.findall(r"^  affwild2 (.+)$", command.epilog, re.M)
    assert examples
    for example in examples:
        found, arguments = find_command(shlex.split(example))
        assert found is command
        found.make_context(command.name, arguments)


def test_documented_commands_are_accepted():
    found = list(documented_commands())
    assert len(found) > 20
    for page, words in found:
        command, arguments = find_command(words)
        try:
            command.make_context(command.name, arguments)
        except click.UsageError as error:
            pytest.fail(f"{page}: affwild2 {' '.join(words)}: {error.format_message()}")


def test_a_shell_completes_commands_and_values():
    script = processes.run_command("--show-completion", "bash")
    assert script.returncode == 0 and "complete -o nosort -F _affwild2_completion affwild2" in script.stdout
    for typed, completed in (("affwild2 extr", ["extract"]), ("affwild2 extract --source mt", ["mtcnn"])):
        asked = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1), "_AFFWILD2_COMPLETE": "bash_complete"}
        assert processes.run_command(environment=asked).stdout.split() == [f"plain,{word}" for word in completed]


def test_a_command_reads_names_in_utf8_in_any_locale(tmp_path):
    (tmp_path / "café.txt").write_text("no video")
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    finished = processes.run_command("score", tmp_path / "café.txt", "--out", tmp_path / "out", environment=locale)
    assert finished.returncode == 2 and "café.txt: expected a video file or a folder of videos" in finished.stderr
