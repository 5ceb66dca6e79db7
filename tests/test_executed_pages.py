"""Execute the notebook and the commands of the documentation, on the data set of the demo."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.processes import program, run_command

# Jupyter and the browser are in the services environment only: tests import them when they run.
pytestmark = pytest.mark.service

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which ``make demo`` was run."""
    folder = tmp_path_factory.mktemp("project")
    finished = run_command("demo", "--out", folder / "demo")
    assert finished.returncode == 0, finished.stderr[-3000:]
    return folder


def test_the_notebook_runs_in_a_kernel_and_shows_what_it_says(folder):
    from tests.gallery import execute_notebook

    outputs = [one for cell in execute_notebook(NOTEBOOK, folder).cells for one in cell.get("outputs", ())]
    texts = [one.get("text") or one["data"]["text/plain"] for one in outputs]
    assert any("va-default" in text and "held_out" in text for text in texts)
    assert any("correlation of valence" in text for text in texts)
    (picture,) = [one["data"]["image/png"] for one in outputs if "image/png" in one.get("data", ())]
    assert 20_000 < len(picture) < 200_000
    assert (folder / "demo/predictions/validation02.parquet").exists()


def test_the_saved_notebook_is_small_and_complete():
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert NOTEBOOK.stat().st_size < 200_000
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in cells) and "image/png" in str(cells)


def test_the_commands_of_the_tutorial_run_as_written(folder, tmp_path):
    (tmp_path / "videos").mkdir()
    for name, copy in (("validation02", "clip"), ("test03", "two_people")):
        shutil.copy(folder / f"demo/data/videos/{name}.mp4", tmp_path / f"videos/{copy}.mp4")
    text = (NOTEBOOK.parent / "tutorial.md").read_text()
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```$", text, re.M | re.S)
    assert [language for language, _ in blocks] == ["sh", "sh", "sh", "python", "sh"]
    printed = []
    for language, block in blocks:
        commands = [["python", "-c", block]] if language == "python" else map(shlex.split, block.splitlines())
        for name, *arguments in commands:
            command = [program(name), *arguments]
            finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=840, check=False)
            assert finished.returncode == 0, f"{command}: {finished.stdout[-2000:]}{finished.stderr[-2000:]}"
            printed.append(finished.stdout)
    scored, viewed, annotated, _, _, forgotten = printed
    assert "clip" in scored and "viewer: " in viewed and "annotate_video" in annotated and "removed" in forgotten
    assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG")
    kept = {path.name for path in (tmp_path / "predictions").iterdir() if path.is_file()}
    assert {"two_people.parquet", "two_people.annotated.mp4"} <= kept and not {
        name for name in kept if name.startswith("clip")
    }
