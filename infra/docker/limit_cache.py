"""Keep folders of caches below a size by deleting the files that were not used for the longest time.

Volumes of container engines have no size limit. Pass folders whose files are made again when needed, such as those of
converted and compiled networks.
"""

import argparse
import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

# Programs open files that they have just looked up.
_IN_USE_SECONDS = 3600.0


def limit_cache(folders: Iterable[Path], *, max_bytes: int) -> tuple[int, int]:
    """Delete files until the folders are below a total size. Files that were used within an hour are kept.

    Returns:
        The number of bytes that were found, and that were deleted.
    """
    files = sorted((file for folder in folders for file in _files(folder)), key=lambda one: one[0])
    found = excess = sum(size for _, size, _ in files)
    excess -= max_bytes
    deleted = 0
    for used, size, path in files:
        if deleted >= excess or time.time() - used < _IN_USE_SECONDS:
            break
        with contextlib.suppress(OSError):
            os.unlink(path)
            deleted += size
    return found, deleted


def _files(folder: Path) -> Iterator[tuple[float, int, str]]:
    """Yield time of last use, allocated bytes and path of every file, without following links."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            with contextlib.suppress(OSError):
                status = os.lstat(path)
                yield max(status.st_atime, status.st_mtime), status.st_blocks * 512, path


def main() -> None:
    """Limit the size of folders, once or repeatedly."""
    arguments = argparse.ArgumentParser(description="Keep folders below a total size: delete the least recently used.")
    arguments.add_argument("folders", type=Path, nargs="+")
    arguments.add_argument("--gigabytes", type=float, required=True)
    arguments.add_argument("--every-seconds", type=float, help="default: check once")
    chosen = arguments.parse_args()
    max_bytes = int(chosen.gigabytes * 1e9)
    while True:
        found, deleted = limit_cache(chosen.folders, max_bytes=max_bytes)
        if found > max_bytes:
            print(f"caches: found {found / 1e9:.2f} GB, deleted {deleted / 1e9:.2f} GB", flush=True)
        if chosen.every_seconds is None:
            return
        time.sleep(chosen.every_seconds)


if __name__ == "__main__":
    main()
