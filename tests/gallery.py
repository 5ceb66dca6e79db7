"""Make the pictures of docs/gallery.md and the outputs of docs/notebook.ipynb again, from the demo.

    make gallery

Needs the Chromium of ``make browser``. The demo shows generated faces of two public-domain portraits, nobody else.
"""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"


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
