"""Interrupt every stage of ``extract`` and ``fit`` in every way, run again, and compare the results.

Part of ``python -m tests.faults``, on local clusters. Some of the cases are in the tests.
"""

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tasks.demo.generate import DemoDataParams, generate_demo_data
from tests.faults.interruptions import VICTIMS, Victim, interrupt
from tests.processes import program

STAGES = {
    "extract": ("videos", "faces", "subjects", "features"),
    "fit": ("labels", "heads", "outputs", "postprocessing"),
}
# A killed worker is replaced, and so is the process that workers are forked from: the run continues.
CODES: dict[Victim, tuple[int, ...]] = {
    "command": (-9,),
    "worker": (0,),
    "forker": (0,),
    "Ctrl-C": (130,),
    "SIGTERM": (130,),
}


def read_results(store: Path) -> dict[str, bytes]:
    """Return the bytes of all parts and bundle files by path. Manifests and reports contain durations."""
    folders = [folder for folder in store.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    folders = [folder for folder in folders if folder.name != "reports"]
    paths = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(store)): path.read_bytes() for path in paths if "manifest" not in path.name}


def arguments_of(flow: str, data: Path, store: Path, *, workers: int = 2) -> list[str]:
    """Return the command line of a flow."""
    common = ["--store", str(store), "--workers", str(workers)]
    if flow == "extract":
        return ["extract", str(data), *common]
    return ["fit", "va", "--annotations", str(data), "--seeds", "1", *common]


def _run(arguments: list[str]) -> None:
    subprocess.run([program("affwild2"), *arguments], check=True, stdout=subprocess.DEVNULL)


def run_cases(root: Path, words: Sequence[str]) -> int:
    """Run the cases whose flow, dataset or victim is one of the words, or all; print a line each; count failures."""
    cases = [(flow, dataset, victim) for flow in STAGES for dataset in STAGES[flow] for victim in VICTIMS]
    chosen = [case for case in cases if not words or set(words) & set(case)]
    if not chosen:
        return 0
    data, before, wrong = root / "data", root / "empty", 0
    generate_demo_data(data, params=DemoDataParams(2, 2, 0, frames=24))
    (data / "videos" / "corrupt.mp4").unlink()
    before.mkdir()
    for flow in STAGES:
        whole = Path(shutil.copytree(before, root / f"whole {flow}"))
        _run(arguments_of(flow, data, whole))
        expected = read_results(whole)
        for _, dataset, victim in (case for case in chosen if case[0] == flow):
            store = Path(shutil.copytree(before, root / "store"))
            good, line = _run_case(arguments_of(flow, data, store), store, expected, dataset, victim)
            print(f"{flow:8} {dataset:15} {victim:8} {line}", flush=True)
            wrong += not good
            shutil.rmtree(store)
        before = whole
    return wrong


def _run_case(
    arguments: list[str], store: Path, expected: dict[str, bytes], dataset: str, victim: Victim
) -> tuple[bool, str]:
    started = time.monotonic()
    ended = interrupt(arguments, store, dataset=dataset, units=1, victim=victim)
    halves = [name for name, found in read_results(store).items() if found != expected.get(name, found)]
    _run(arguments)
    same = read_results(store) == expected
    good = same and not halves and not ended.orphans and ended.code in CODES[victim]
    return good, (
        f"code {ended.code:4}, half-written {len(halves)}, orphans {len(ended.orphans)}, resumed "
        f"{'to the same bytes' if same else 'to DIFFERENT bytes'}, {time.monotonic() - started:.0f} s"
        f"{'' if good else '  FAILED'}"
    )
