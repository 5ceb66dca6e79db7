"""Run all benchmarks, each script in its own process, and store the results in a dated file and docs/performance.md.

    python tests/benchmarks/run_benchmarks.py [--quick [--store]] [--only WORD] [NAME ...]

NAME is part of a script's name, WORD of a benchmark's. ``--quick`` uses small inputs and compares the ratios with those
of ``results/quick.json`` instead of storing them (``--store`` rewrites that file). A fallen ratio is a warning, not an
error. Results that do not agree are always an error.
"""

import argparse
import ast
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pairs import Measured
from result_files import FOLDER, QUICK_FILE, find_fallen_ratios, load_results, store_results, write_page

# Freed buffers stay with the process instead of returning to the kernel, which makes networks several times faster.
_TUNED_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}


def find_scripts(folder: Path, names: list[str]) -> list[Path]:
    """Find the scripts of the folder whose names contain one of the words; all if there are no words."""
    found = sorted(folder.glob("bench_*.py"))
    return [path for path in found if not names or any(name in path.stem for name in names)]


def read_constant(script: Path, name: str, default: Any) -> Any:
    """Read a constant of a script without importing it.

    ``ALLOCATORS``: the allocator settings to run the script with. ``QUICK``: whether the script has small inputs.
    """
    for node in ast.parse(script.read_text()).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]:
            return ast.literal_eval(node.value)
    return default


def run_script(script: Path, *, allocator: str, quick: bool, only: str = "") -> tuple[list[Measured], bool]:
    """Run a script; return its measurements and whether it succeeded."""
    name = script.stem.removeprefix("bench_")
    environment = {key: value for key, value in os.environ.items() if key not in _TUNED_ALLOCATOR}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "measured.json")
        command = [sys.executable, str(script), "--json", str(file), "--script", name, "--allocator", allocator]
        command += ["--only", only]
        if quick:
            command.append("--quick")
        finished = subprocess.run(command, env=environment | (_TUNED_ALLOCATOR if allocator == "tuned" else {}))
        rows = json.loads(file.read_text()) if file.exists() else []
    return [Measured.from_dict(values) for values in rows], finished.returncode == 0


def main() -> int:
    """Run the selected scripts; return 0 if all succeeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--store", action="store_true")
    parser.add_argument("--only", default="", metavar="WORD")
    options = parser.parse_args()
    measured: list[Measured] = []
    failed, started = [], time.monotonic()
    for script in find_scripts(Path(__file__).parent, options.names):
        if options.quick and not read_constant(script, "QUICK", True):
            continue
        allocators = read_constant(script, "ALLOCATORS", ("default",))
        for allocator in allocators[:1] if options.quick else allocators:
            print(f"== {script.stem}", flush=True)
            rows, succeeded = run_script(script, allocator=allocator, quick=options.quick, only=options.only)
            measured += rows
            if not succeeded:
                failed.append(script.stem)
    print(f"{len(measured)} pairs in {time.monotonic() - started:.0f} s")
    _save(measured, quick=options.quick, store=options.store)
    for name in failed:
        print(f"FAILED: {name}")
    return 1 if failed else 0


def _save(measured: list[Measured], *, quick: bool, store: bool) -> None:
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    if not quick:
        # The speed of a wrong result has no meaning.
        store_results(FOLDER / f"{date}.json", [m for m in measured if m.parity_holds], date=date)
        write_page()
    elif store:
        store_results(QUICK_FILE, measured, date=date)
    else:
        for line in find_fallen_ratios(measured, load_results(QUICK_FILE)):
            print(f"WARNING: {line}")


if __name__ == "__main__":
    sys.exit(main())
