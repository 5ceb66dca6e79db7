"""All benchmarks, each script in a process of its own; what was measured goes into a dated file and onto a page.

    python tests/benchmarks/run_benchmarks.py [--quick [--store]] [NAME ...]

NAME is part of a script's name. ``--quick`` takes small sizes and compares the ratios with those of
``results/quick.json`` (``--store`` writes that file anew) instead of keeping them; a ratio that has fallen is a
warning, not an error. Results that no longer agree are an error in either case.
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
from result_files import FOLDER, QUICK_FILE, fallen_ratios, load_results, store_results, write_page

# Freed buffers stay with the process instead of going back to the kernel: worth several times the speed of a network.
_KEEP = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}


def find_scripts(folder: Path, names: list[str]) -> list[Path]:
    """Scripts of the folder whose names contain one of the words; all if no word is given."""
    found = sorted(folder.glob("bench_*.py"))
    return [path for path in found if not names or any(name in path.stem for name in names)]


def constant_of(script: Path, name: str, default: Any) -> Any:
    """What a script says of itself, read without importing it.

    ``ALLOCATORS``: under which settings of the allocator it wants to run. ``QUICK``: whether it has small pairs.
    """
    for node in ast.parse(script.read_text()).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]:
            return ast.literal_eval(node.value)
    return default


def run_script(script: Path, *, allocator: str, quick: bool) -> tuple[list[Measured], bool]:
    """What a script measured, and whether it ended well."""
    name = script.stem.removeprefix("bench_")
    environment = {key: value for key, value in os.environ.items() if key not in _KEEP}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "measured.json")
        command = [sys.executable, str(script), "--json", str(file), "--script", name, "--allocator", allocator]
        if quick:
            command.append("--quick")
        done = subprocess.run(command, env=environment | (_KEEP if allocator == "tuned" else {}))
        rows = json.loads(file.read_text()) if file.exists() else []
    return [Measured.from_dict(values) for values in rows], done.returncode == 0


def main() -> int:
    """Run what was asked for; 0 if every script ended well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--store", action="store_true")
    options = parser.parse_args()
    measured: list[Measured] = []
    failed, started = [], time.monotonic()
    for script in find_scripts(Path(__file__).parent, options.names):
        if options.quick and not constant_of(script, "QUICK", True):
            continue
        allocators = constant_of(script, "ALLOCATORS", ("default",))
        for allocator in allocators[:1] if options.quick else allocators:
            print(f"== {script.stem}", flush=True)
            rows, well = run_script(script, allocator=allocator, quick=options.quick)
            measured += rows
            if not well:
                failed.append(script.stem)
    print(f"{len(measured)} pairs in {time.monotonic() - started:.0f} s")
    _keep(measured, quick=options.quick, store=options.store)
    for name in failed:
        print(f"FAILED: {name}")
    return 1 if failed else 0


def _keep(measured: list[Measured], *, quick: bool, store: bool) -> None:
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    if not quick:
        # A result that is wrong has no speed.
        store_results(FOLDER / f"{date}.json", [m for m in measured if m.parity_holds], date=date)
        write_page()
    elif store:
        store_results(QUICK_FILE, measured, date=date)
    else:
        for line in fallen_ratios(measured, load_results(QUICK_FILE)):
            print(f"WARNING: {line}")


if __name__ == "__main__":
    sys.exit(main())
