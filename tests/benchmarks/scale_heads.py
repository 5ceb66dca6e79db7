"""Time and memory of fitting the head for action units on as many rows as Aff-Wild2, with memory-mapped features.

    python tests/benchmarks/scale_heads.py [--rows 1356861] [--epochs 20] [--folder DIR]

Run by hand: needs 3.5 GB of disk and takes minutes. Anonymous memory cannot be released under memory pressure; pages of
the mapped file can.
"""

import argparse
import ctypes
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from generated_rows import WIDTH, make_rows
from numpy.lib.format import open_memmap

from models.engines.precision import native_precision
from models.heads.fitting import fit_seeds
from models.heads.recipes import get_recipe
from models.heads.rows import TrainingRows

PART = 65_536


def anonymous_mb() -> float:
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) * 1024 / 1e6


def make_mapped_rows(path: Path, count: int, *, seed: int) -> TrainingRows:
    """Generate rows part by part, so that this takes no more memory than fitting."""
    embeddings = open_memmap(path, "w+", np.float16, (count, WIDTH))
    parts = []
    for first in range(0, count, PART):
        part = make_rows(min(PART, count - first), seed=seed + first)
        embeddings[first : first + PART] = part.embeddings
        parts.append((part.logits, part.labels))
    embeddings.flush()
    mapped = np.load(path, mmap_mode="r")
    labels = {branch: np.concatenate([part[1][branch] for part in parts]) for branch in parts[0][1]}
    return TrainingRows(mapped, np.concatenate([part[0] for part in parts]), labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_356_861)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        train = make_mapped_rows(Path(folder, "train.npy"), options.rows, seed=1000)
        validation = make_mapped_rows(Path(folder, "validation.npy"), options.rows // 3, seed=2)
        recipe = get_recipe("paper", task="au").replace(epochs=options.epochs)
        ctypes.CDLL(None).malloc_trim(0)  # do not count memory that was freed after generating the rows
        peaks, ended, before = [0.0], threading.Event(), anonymous_mb()

        def watch() -> None:
            while not ended.wait(0.2):
                peaks.append(anonymous_mb())

        thread = threading.Thread(target=watch)
        thread.start()
        started = time.monotonic()
        fitted = fit_seeds(train, validation, task="au", recipe=recipe, precision=native_precision())
        seconds = time.monotonic() - started
        ended.set()
        thread.join()
        print(
            f"{options.rows:,} rows, {options.epochs} epochs, {native_precision()}: {seconds:.1f} s, "
            f"{options.rows * options.epochs / seconds:,.0f} rows/s; mean F1 {fitted.figures['mean_f1']:.4f}; "
            f"anonymous memory {before:.0f} MB before, at most {max(peaks):.0f} MB"
        )


if __name__ == "__main__":
    main()
