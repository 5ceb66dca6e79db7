"""Pass hostile inputs to every reader: no traceback, no hang, no file written elsewhere, no excessive memory.

``python -m tests.fuzz.fuzz_readers --inputs 5000 --seed 0``. A reader may accept an input or refuse it in one line
(``InputError`` or another ``ValueError``). Any other outcome is a fault: it is printed with the seed that reproduces
it, and the input is kept. Exits with code 1 if there were faults.
"""

import argparse
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from types import FrameType

from tests.fuzz.mutations import mutate
from tests.fuzz.readers import Reader, all_readers

SECONDS_PER_INPUT = 10
MEMORY_BYTES = 1 << 30


class _HangError(BaseException):
    pass


def _on_alarm(number: int, frame: FrameType | None) -> None:
    raise _HangError


def _resident_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _try(reader: Reader, path: Path) -> str:
    """Read one input; return ``accepted``, ``refused``, or a description of the fault."""
    signal.alarm(SECONDS_PER_INPUT)
    try:
        reader.read(path)
    except ValueError as error:
        text = str(error)
        return "refused" if text.strip() and "\n" not in text else f"message of several lines: {text!r}"
    except _HangError:
        return f"no result within {SECONDS_PER_INPUT} s"
    except Exception:
        return traceback.format_exc(limit=-3)
    finally:
        signal.alarm(0)
    return "accepted"


def _fuzz(reader: Reader, count: int, seed: int, root: Path, kept: Path) -> tuple[Counter[str], list[str]]:
    outcomes: Counter[str] = Counter()
    faults = []
    inside = root / "inside"
    for number in range(count):
        source = random.Random(f"{seed}/{reader.name}/{number}")
        inside.mkdir()
        path = inside / f"input{reader.suffix}"
        data = mutate(source.choice(reader.seeds), source)
        path.write_bytes(data)
        outcome = _try(reader, path)
        if [p.name for p in root.iterdir()] != ["inside"]:
            outcome = f"wrote outside: {sorted(p.name for p in root.iterdir())}"
        if outcome not in ("accepted", "refused"):
            kept.mkdir(exist_ok=True)
            (kept / f"{reader.name.replace(' ', '-')}-{number}{reader.suffix}").write_bytes(data)
            faults.append(f"{reader.name}, seed {seed}, input {number}: {outcome}")
            outcome = "faults"
        outcomes[outcome] += 1
        shutil.rmtree(inside)
    return outcomes, faults


def main() -> int:
    """Print a line per reader; return 1 if there were faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-faults"), help="folder for inputs that cause faults")
    parser.add_argument("--only", default="", help="beginning of a reader's name")
    chosen = parser.parse_args()
    signal.signal(signal.SIGALRM, _on_alarm)
    faults: list[str] = []
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="affwild2-fuzz-") as scratch:
        seeds, root = Path(scratch, "seeds"), Path(scratch, "root")
        seeds.mkdir()
        root.mkdir()
        readers = [reader for reader in all_readers(seeds) if reader.name.startswith(chosen.only)]
        shares = sum(reader.share for reader in readers)
        before = _resident_bytes()
        for reader in readers:
            started = time.monotonic()
            count = max(1, round(chosen.inputs * reader.share / shares))
            outcomes, found = _fuzz(reader, count, chosen.seed, root, chosen.keep)
            growth_mb = (_resident_bytes() - before) / 1e6
            total += outcomes
            faults += found
            summary = ", ".join(f"{outcomes[kind]:5} {kind}" for kind in ("accepted", "refused", "faults"))
            seconds = time.monotonic() - started
            print(
                f"{reader.name:18} {count:5} inputs: {summary}, {seconds:6.1f} s, memory so far +{growth_mb:.0f} MB",
                flush=True,
            )
        if _resident_bytes() - before > MEMORY_BYTES:
            faults.append(f"memory grew by more than {MEMORY_BYTES:,} bytes")
    print(f"{total.total()} inputs, {len(faults)} faults")
    for fault in faults[:20]:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
