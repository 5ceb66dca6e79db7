"""Time and memory of ``import-features`` for a large file, to show that memory does not grow with it.

Usage: python tests/benchmarks/measure_import.py FOLDER [--rows 500000] [--values 512]

Writes one npz and one Parquet file of random values for subjects of 2,000 frames, in random order of rows, into FOLDER
(1 GB each), imports each into a store of its own, and removes all of it.
"""

import argparse
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from command_watch import watch

_FRAMES, _BLOCK = 2_000, 20_000


def write_files(folder: Path, rows: int, values: int) -> list[Path]:
    """Write the same rows as npz and Parquet."""
    random = np.random.default_rng(0)
    order = random.permutation(rows)
    subject, frame = np.array([f"clip{at:04d}" for at in order // _FRAMES]), (order % _FRAMES + 1).astype(np.int32)
    embedding = np.lib.format.open_memmap(folder / "embedding.npy", "w+", np.float32, (rows, values))
    schema = pa.schema({"subject": pa.string(), "frame": pa.int32(), "embedding": pa.list_(pa.float32(), values)})
    with pq.ParquetWriter(folder / "rows.parquet", schema) as writer:
        for first in range(0, rows, _BLOCK):
            here = slice(first, min(first + _BLOCK, rows))
            embedding[here] = random.standard_normal((here.stop - first, values), np.float32)
            lists = pa.FixedSizeListArray.from_arrays(pa.array(embedding[here].reshape(-1)), values)
            writer.write_table(pa.table([pa.array(subject[here]), pa.array(frame[here]), lists], schema=schema))
    embedding.flush()
    with zipfile.ZipFile(folder / "rows.npz", "w") as archive:
        for name, array in (("subject", subject), ("frame", frame)):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array)
        archive.write(folder / "embedding.npy", "embedding.npy")
    (folder / "embedding.npy").unlink()
    return [folder / "rows.npz", folder / "rows.parquet"]


def main() -> int:
    """Run the command; return 1 if an import failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--values", type=int, default=512)
    given = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="affwild2-import-") as scratch:
        folder = Path(scratch)
        program = str(Path(sys.executable).with_name("affwild2"))
        for path in write_files(folder, given.rows, given.values):
            store, temporary = folder / "store", folder / "temporary"
            temporary.mkdir()
            # A folder of a dataset makes the store exist.
            (store / "features").mkdir(parents=True)
            command = [program, "import-features", str(path), "--name", "audio", "--store", str(store)]
            found = watch(command, temporary=temporary, environment=os.environ)
            failed += found.exit_code != 0
            print(
                f"{path.name}, {path.stat().st_size / 1e6:,.0f} MB, {given.rows:,} rows of {given.values} values: "
                f"exit code {found.exit_code}, {found.seconds:.0f} s ({found.cpu_seconds:.0f} s of processor time), "
                f"at most {found.anonymous_mb:,.0f} MB besides mapped files ({found.peak_mb:,.0f} MB with them), "
                f"{found.temporary_mb:,.0f} MB of temporary files; other programs used {found.other_cores:.1f} cores",
                flush=True,
            )
            if found.exit_code:
                print(found.output)
            shutil.rmtree(store, ignore_errors=True)
            shutil.rmtree(temporary)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
