"""Every stage of ``extract`` and ``fit``, disturbed in every way, then resumed: are rows and values the same?

By hand: ``python -m tests.faults.interruption_matrix [VICTIM ...]`` (about a minute per cell on two cores). A few of
its cells are in the tests. Prints a line per cell; ends with code 1 if any cell is not as it should be.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tasks.generate_demo_data import DemoDataParams, generate_demo_data
from tests.faults.disturbances import VICTIMS, Victim, disturb

STAGES = {
    "extract": ("videos", "faces", "subjects", "features"),
    "fit": ("labels", "heads", "outputs", "postprocessing"),
}
# A killed worker is replaced, and so is the process that workers are forked from: the run goes on.
CODES: dict[Victim, tuple[int, ...]] = {
    "command": (-9,),
    "worker": (0,),
    "forker": (0,),
    "Ctrl-C": (130,),
    "SIGTERM": (130,),
}


def data_bytes(store: Path) -> dict[str, bytes]:
    """All results that readers see: parts and files of bundles, without manifests, which hold seconds."""
    folders = [folder for folder in store.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    paths = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(store)): path.read_bytes() for path in paths if "manifest" not in path.name}


def arguments_of(flow: str, data: Path, store: Path, *, workers: int = 2) -> list[str]:
    """The command of a flow."""
    common = ["--store", str(store), "--workers", str(workers)]
    if flow == "extract":
        return ["extract", str(data), *common]
    return ["fit", "va", "--annotations", str(data), "--seeds", "1", *common]


def _run(arguments: list[str]) -> None:
    program = str(Path(sys.executable).with_name("affwild2"))
    subprocess.run([program, *arguments], check=True, stdout=subprocess.DEVNULL)


def main() -> int:
    """Print the matrix; how many cells are wrong."""
    chosen = [victim for victim in VICTIMS if victim in sys.argv[1:] or len(sys.argv) == 1]
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="affwild2-faults-") as scratch:
        root = Path(scratch)
        data, before = root / "data", root / "empty"
        generate_demo_data(data, params=DemoDataParams(2, 2, 0, frames=24))
        (data / "videos" / "corrupt.mp4").unlink()
        before.mkdir()
        for flow, datasets in STAGES.items():
            whole = Path(shutil.copytree(before, root / f"whole {flow}"))
            _run(arguments_of(flow, data, whole))
            expected = data_bytes(whole)
            for dataset in datasets:
                for victim in chosen:
                    started = time.monotonic()
                    store = Path(shutil.copytree(before, root / "store"))
                    arguments = arguments_of(flow, data, store)
                    ended = disturb(arguments, store, dataset=dataset, units=1, victim=victim)
                    visible = data_bytes(store)
                    halves = [name for name, found in visible.items() if found != expected.get(name, found)]
                    _run(arguments)
                    same = data_bytes(store) == expected
                    good = same and not halves and not ended.orphans and ended.code in CODES[victim]
                    wrong += not good
                    print(
                        f"{flow:8} {dataset:15} {victim:8} code {ended.code:4}, half-written {len(halves)}, orphans "
                        f"{len(ended.orphans)}, resumed {'to the same bytes' if same else 'to OTHER bytes'}, "
                        f"{time.monotonic() - started:.0f} s{'' if good else '  WRONG'}",
                        flush=True,
                    )
                    shutil.rmtree(store)
            before = whole
    return wrong


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
