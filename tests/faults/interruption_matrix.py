"""Disturb every stage of ``extract`` and ``fit`` in every way, resume, and compare rows and values.

Part of ``python -m tests.faults``, on local clusters. The tests run a few of its cells.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tasks.demo.generate import DemoDataParams, generate_demo_data
from tests.faults.disturbances import VICTIMS, Victim, disturb

STAGES = {
    "extract": ("videos", "faces", "subjects", "features"),
    "fit": ("labels", "heads", "outputs", "postprocessing"),
}
# A killed worker and a killed forker are replaced, and the run continues.
CODES: dict[Victim, tuple[int, ...]] = {
    "command": (-9,),
    "worker": (0,),
    "forker": (0,),
    "Ctrl-C": (130,),
    "SIGTERM": (130,),
}


def data_bytes(store: Path) -> dict[str, bytes]:
    """Read all results: parts and files of bundles, without manifests and reports, which contain durations."""
    folders = [folder for folder in store.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    folders = [folder for folder in folders if folder.name != "reports"]
    paths = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(store)): path.read_bytes() for path in paths if "manifest" not in path.name}


def arguments_of(flow: str, data: Path, store: Path, *, workers: int = 2) -> list[str]:
    """Return the command-line arguments of a flow."""
    common = ["--store", str(store), "--workers", str(workers)]
    if flow == "extract":
        return ["extract", str(data), *common]
    return ["fit", "va", "--annotations", str(data), "--seeds", "1", *common]


def _run(arguments: list[str]) -> None:
    program = str(Path(sys.executable).with_name("affwild2"))
    subprocess.run([program, *arguments], check=True, stdout=subprocess.DEVNULL)


def print_matrix(root: Path, words: Sequence[str]) -> int:
    """Print a line per cell whose flow, dataset or victim is one of the words; return the number of failures."""
    cells = [(flow, dataset, victim) for flow in STAGES for dataset in STAGES[flow] for victim in VICTIMS]
    chosen = [cell for cell in cells if not words or set(words) & set(cell)]
    if not chosen:
        return 0
    data, before, failed = root / "data", root / "empty", 0
    generate_demo_data(data, params=DemoDataParams(2, 2, 0, frames=24))
    (data / "videos" / "corrupt.mp4").unlink()
    before.mkdir()
    for flow in STAGES:
        whole = Path(shutil.copytree(before, root / f"whole {flow}"))
        _run(arguments_of(flow, data, whole))
        expected = data_bytes(whole)
        for _, dataset, victim in (cell for cell in chosen if cell[0] == flow):
            store = Path(shutil.copytree(before, root / "store"))
            succeeded, line = _try_cell(arguments_of(flow, data, store), store, expected, dataset, victim)
            print(f"{flow:8} {dataset:15} {victim:8} {line}", flush=True)
            failed += not succeeded
            shutil.rmtree(store)
        before = whole
    return failed


def _try_cell(
    arguments: list[str], store: Path, expected: dict[str, bytes], dataset: str, victim: Victim
) -> tuple[bool, str]:
    started = time.monotonic()
    ended = disturb(arguments, store, dataset=dataset, units=1, victim=victim)
    halves = [name for name, found in data_bytes(store).items() if found != expected.get(name, found)]
    _run(arguments)
    same = data_bytes(store) == expected
    succeeded = same and not halves and not ended.orphans and ended.code in CODES[victim]
    return succeeded, (
        f"code {ended.code:4}, half-written {len(halves)}, orphans {len(ended.orphans)}, resumed "
        f"{'to the same bytes' if same else 'to DIFFERENT bytes'}, {time.monotonic() - started:.0f} s"
        f"{'' if succeeded else '  FAILED'}"
    )
