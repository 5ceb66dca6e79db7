"""Manifests of a store on S3, kept on this machine by their ETags: who looks at it again only lists it.

What is kept counts only for a file that has the same size and ETag in a listing made just now; so it is never stale. It
is a copy of what the store says of people's videos: what is gone from the store goes here too, with the next listing.
"""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.settings import read_settings

_SCHEMA = pa.schema([("path", pa.string()), ("size_bytes", pa.int64()), ("etag", pa.string()), ("data", pa.binary())])


class Kept(NamedTuple):
    """A manifest as it was read: its path in the store, size in bytes and ETag, and its bytes."""

    path: str
    size_bytes: int
    etag: str
    data: bytes


class KeptManifests:
    """One file per dataset in the user's cache folder, or in ``AFFWILD2_CACHE``.

    A folder that cannot be written to, or a file that cannot be read, is no error: nothing is kept then.
    """

    def __init__(self, store_url: str) -> None:
        server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        self._name = hashlib.sha256(f"{server} {store_url}".encode()).hexdigest()[:32]

    def read(self, dataset: str) -> dict[str, Kept]:
        """What is kept of a dataset, by path."""
        try:
            columns = pq.read_table(self._file(dataset), schema=_SCHEMA).to_pydict()
        except (OSError, pa.ArrowException):
            return {}
        rows = map(Kept, *(columns[name] for name in _SCHEMA.names))
        return {kept.path: kept for kept in rows}

    def write(self, dataset: str, manifests: Iterable[Kept]) -> None:
        """Keep these manifests of a dataset, and no others."""
        columns = dict(zip(_SCHEMA.names, map(list, zip(*manifests, strict=True)), strict=False))
        file = self._file(dataset)
        unfinished = file.with_name(f".{uuid.uuid4().hex}")
        with contextlib.suppress(OSError):
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not columns:
                file.unlink(missing_ok=True)
                return
            pq.write_table(pa.table(columns, schema=_SCHEMA), unfinished, compression="zstd")
            os.replace(unfinished, file)

    def _file(self, dataset: str) -> Path:
        return Path(read_settings().cache_folder, "manifests", self._name, f"{dataset}.parquet")
