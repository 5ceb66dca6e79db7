"""Make the pictures of docs/gallery.md and the outputs of docs/notebook.ipynb again, from the demo.

    make gallery

Needs the Chromium of ``make browser``. The demo shows generated faces of two public-domain portraits, nobody else.
"""

import argparse
import base64
import io
import os
import pty
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import nbformat
from nbclient import NotebookClient
from PIL import Image
from rich.console import Console
from rich.text import Text

from tests.browser import Browser, running_browser
from tests.prefect_service import PrefectService, serving_prefect
from tests.processes import program

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOK = DOCS / "notebook.ipynb"
PICTURES = DOCS / "images"
# A subject of the validation set: its labels are drawn beside the predictions.
VIDEO = "validation02"
# A video with two persons.
TWO_PERSONS = "train08"
_TERMINAL_COLUMNS = 118
# Removes paths of this machine from the text of a page, and seeks its video.
_PREPARE = """folder => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(folder, "");
  for (const video of document.querySelectorAll("video")) video.currentTime = 1.08;
}"""


def execute_notebook(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Execute a notebook in a kernel whose current folder is ``folder``; return it with its outputs.

    Raises:
        CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    # Times of execution would change the file each time.
    NotebookClient(notebook, timeout=600, record_timing=False, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in notebook.cells:
        # Progress depends on the machine, and a notebook opens quickly without the second form of tables.
        outputs = [one for one in cell.get("outputs", []) if one.get("name") != "stderr"]
        for one in outputs:
            one.get("data", {}).pop("text/html", None)
        if cell.cell_type == "code":
            cell.outputs = outputs
    return notebook


def save_picture(data: bytes | Image.Image, name: str) -> None:
    """Write a picture with 256 colours into the documentation."""
    picture = data if isinstance(data, Image.Image) else Image.open(io.BytesIO(data))
    picture.convert("RGB").quantize(256).save(PICTURES / f"{name}.png", optimize=True)
    print(f"{PICTURES / name}.png")


def run_on_terminal(arguments: list[str], folder: Path, **variables: str) -> str:
    """Run a command on a terminal, with environment variables; return what it wrote, with its colours."""
    controller, terminal = pty.openpty()
    environment = os.environ | variables | {"COLUMNS": str(_TERMINAL_COLUMNS), "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [program("affwild2"), *arguments], stdout=terminal, stderr=terminal, cwd=folder, env=environment
    )
    os.close(terminal)
    output = bytearray()
    # Reading fails when the process has ended and closed the terminal.
    while True:
        try:
            output += os.read(controller, 65536)
        except OSError:
            break
    os.close(controller)
    if process.wait():
        raise RuntimeError(f"affwild2 {' '.join(arguments)}: exit code {process.returncode}: {output.decode()[-2000:]}")
    # Paths of this machine are no part of the documentation.
    return output.decode().replace(f"{folder}/", "")


def draw_terminal(browser: Browser, title: str, output: str, page: Path) -> bytes:
    """Return a picture of the output of a command."""
    console = Console(record=True, width=_TERMINAL_COLUMNS, file=io.StringIO())
    for line in map(Text.from_ansi, output.replace("\r\n", "\n").splitlines()):
        # Progress begins with a sign of Braille, and is overwritten on a terminal.
        if (text := line.plain.strip()) and not "\u2800" <= text[0] <= "\u28ff":
            console.print(line)
    page.write_text(f"<body style='margin:0'>{console.export_svg(title=title)}</body>")
    return browser.open(page, width=1280).page.locator("svg").first.screenshot()


def draw_page(browser: Browser, page: Path, name: str, *, folder: Path, height: int = 900) -> None:
    """Write pictures of a page in light and dark mode, and on a phone; a video is at a later frame."""
    for suffix, dark, width in (("", False, 1280), ("-dark", True, 1280), ("-phone", False, 390)):
        opened = browser.open(page, dark=dark, width=width, height=height if width > 390 else 844)
        opened.page.evaluate(_PREPARE, f"{folder}/")
        opened.page.wait_for_timeout(2000)
        save_picture(opened.page.screenshot(), f"{name}{suffix}")
        opened.page.context.close()


def draw_artifact(browser: Browser, service: PrefectService, key: str) -> None:
    """Write a picture of the latest artifact with a key, on the page of the Prefect server."""
    (artifact,) = service.ask(
        "POST", "artifacts/filter", artifacts={"key": {"any_": [key]}}, sort="CREATED_DESC", limit=1
    )
    opened = browser.open(f"{service.url.removesuffix('/api')}/artifacts/artifact/{artifact['id']}")
    opened.page.get_by_role("table").wait_for()
    opened.page.wait_for_timeout(2000)
    save_picture(opened.page.screenshot(), "prefect")


def middle_frame(video: Path) -> Image.Image:
    """Return the frame in the middle of a video."""
    with av.open(str(video)) as container:
        frames = list(container.decode(video=0))
    return frames[len(frames) // 2].to_image()


def main() -> int:
    """Run the demo, unless a folder with it is given, and write all pictures and the notebook."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="folder that contains the demo as demo/; default: run it again")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (parser.parse_args().folder or Path(temporary)).resolve()
        if not (folder / "demo/store").exists():
            run_on_terminal(["demo", "--out", "demo"], folder)
        notebook = execute_notebook(NOTEBOOK, folder)
        nbformat.write(notebook, NOTEBOOK)
        shown = [
            one.data["image/png"]
            for cell in notebook.cells
            for one in cell.get("outputs", ())
            if "data" in one and "image/png" in one.data
        ]
        save_picture(base64.b64decode(shown[0]), "timeline")
        score = ["score", "demo/data/videos", "--store", "demo/store", "--out", "demo/predictions"]
        clip = ["score", f"demo/data/videos/{VIDEO}.mp4", *score[2:]]
        (two,) = (str(path) for path in folder.glob(f"demo/data/videos/{TWO_PERSONS}.*"))
        run_on_terminal([*clip, "--annotate"], folder)
        printed = run_on_terminal(clip, folder)
        run_on_terminal(["score", two, *score[2:], "--annotate"], folder)
        run_on_terminal(["view", VIDEO, TWO_PERSONS, "--store", "demo/store", "--out", "demo/predictions"], folder)
        run_on_terminal(["report", "--store", "demo/store"], folder)
        save_picture(middle_frame(folder / f"demo/predictions/{VIDEO}.annotated.mp4"), "annotated")
        save_picture(middle_frame(folder / f"demo/predictions/{TWO_PERSONS}.annotated.mp4"), "annotated-persons")
        reports = folder / "demo/store/reports"
        (folder / "prefect").mkdir(exist_ok=True)
        with serving_prefect(folder / "prefect") as service, running_browser() as browser:
            run_on_terminal([*clip[:2], two, *clip[2:]], folder, **service.environment)
            draw_artifact(browser, service, "score-summary")
            viewer = browser.open(reports / f"viewers/{TWO_PERSONS}/index.html", height=1250)
            viewer.page.evaluate(_PREPARE, f"{folder}/")
            viewer.page.wait_for_timeout(2000)
            save_picture(viewer.page.screenshot(), "viewer-persons")
            draw_page(browser, reports / "store/index.html", "report", folder=folder)
            draw_page(browser, reports / f"viewers/{VIDEO}/index.html", "viewer", folder=folder, height=1100)
            title = f"affwild2 {' '.join(clip)}"
            save_picture(draw_terminal(browser, title, printed, folder / "terminal.html"), "score")
    return 0


if __name__ == "__main__":
    sys.exit(main())
