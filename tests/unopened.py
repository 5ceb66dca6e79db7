"""Files that exist and cannot be opened, also by root."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def not_openable(path: Path) -> Iterator[None]:
    """Let a file fail to open inside the block, with an unchanged state; afterwards, it is as before."""
    state, kept = path.stat(), path.with_name(f"{path.name}.kept")
    path.rename(kept)
    path.mkdir()
    yield
    path.rmdir()
    kept.rename(path)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
