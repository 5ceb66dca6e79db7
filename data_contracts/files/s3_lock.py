"""One run at a time on a store on S3: an object that says who is at work, written on a condition and kept fresh.

A holder that is gone is known in three ways: its object has not been renewed for a minute by the server's own clock,
its process is no longer on this machine, or it has taken the object away at its end. No two machines need the same
time.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psutil

from data_contracts.errors import StoreError

if TYPE_CHECKING:
    from data_contracts.files.s3 import ObjectHead, S3Files

LOCK = ".lock"
# What is not renewed for so long has no holder any more.
_LIFE_SECONDS = 60.0
_RENEW_SECONDS = 15.0
_ASK_SECONDS = 2.0


class S3Lock:
    """The lock of this process on a store: ``take`` and ``release``; ``raise_if_lost`` checks it in between."""

    def __init__(self, files: "S3Files") -> None:
        self._files = files
        self._about = _about_this_process() | {"token": uuid.uuid4().hex}
        self._renewals, self._renewed, self._etag = 0, 0.0, ""
        self._lost_to: str | None = None
        self._end = threading.Event()
        self._renewer = threading.Thread(target=self._keep_fresh, name="s3-lock", daemon=True)

    def take(self, on_wait: Callable[[str], None]) -> None:
        """Wait until nobody else holds the store, and hold it; ``on_wait`` is told, once, who does.

        Raises:
            StoreError: the store cannot be written to.
        """
        told = False
        while not self._try_to_take(seen := self._files.head(LOCK)):
            if seen and not self._is_gone(seen):
                if not told:
                    on_wait(f"{self._files.url}: {_read(seen)['owner']} is using this store; waiting until it ends")
                    told = True
                time.sleep(_ASK_SECONDS)
        self._renewer.start()

    def raise_if_lost(self) -> None:
        """That no other run has taken the store over.

        Raises:
            StoreError: one has, because this process could not renew its lock for a minute.
        """
        if self._lost_to is not None:
            raise StoreError(
                f"{self._files.url}: expected to be alone at work on this store, got: {self._lost_to} took it over "
                f"when this run could not be heard of for {_LIFE_SECONDS:.0f} s; run again"
            )

    def release(self) -> None:
        """Let others have the store."""
        self._end.set()
        if self._renewer.is_alive():
            self._renewer.join(_ASK_SECONDS)
        # If it cannot be taken away now, it will not be renewed.
        with contextlib.suppress(StoreError), self._files.short_timeout():
            if self._is_ours(self._files.head(LOCK)):
                self._files.remove(LOCK)

    def _try_to_take(self, seen: "ObjectHead | None") -> bool:
        if seen is None:
            return self._write(None)
        # The answer to a first try may be lost, and its repetition be told that somebody (we) was faster.
        return self._is_ours(seen) or (self._is_gone(seen) and self._write(seen.etag))

    def _write(self, etag: str | None) -> bool:
        self._renewals += 1
        about = json.dumps(self._about | {"renewals": self._renewals})
        written = self._files.replace_if(LOCK, about.encode() + b"\n", etag=etag, note=about)
        if written:
            self._etag, self._renewed = written, time.monotonic()
        return written is not None

    def _is_ours(self, seen: "ObjectHead | None") -> bool:
        if seen is None or _read(seen).get("token") != self._about["token"]:
            return False
        self._etag, self._renewed = seen.etag, time.monotonic()
        return True

    def _is_gone(self, seen: "ObjectHead") -> bool:
        holder = _read(seen)
        if seen.age_seconds > _LIFE_SECONDS:
            return True
        return holder.get("machine") == self._about["machine"] and not _lives(holder)

    def _keep_fresh(self) -> None:
        while not self._end.wait(_RENEW_SECONDS):
            try:
                if self._write(self._etag) or self._is_ours(self._files.head(LOCK)):
                    continue
                seen = self._files.head(LOCK)
                self._lost_to = _read(seen)["owner"] if seen else "another run"
                return
            except StoreError:
                if time.monotonic() - self._renewed > _LIFE_SECONDS:
                    self._lost_to = "another run perhaps"
                    return


def _about_this_process() -> dict[str, Any]:
    return {
        "owner": f"process {os.getpid()} on {socket.gethostname()}",
        "machine": _machine(),
        "process": os.getpid(),
        "process_started": round(psutil.Process().create_time(), 1),
    }


def _machine() -> str:
    """What only processes that see one another have in common: neither two machines nor two containers do."""
    known = [socket.gethostname()]
    with contextlib.suppress(OSError):
        known.append(os.readlink("/proc/self/ns/pid"))
        with open("/proc/sys/kernel/random/boot_id") as file:
            known.append(file.read().strip())
    return " ".join(known)


def _lives(holder: dict[str, Any]) -> bool:
    try:
        process = psutil.Process(holder["process"])
        is_it = abs(process.create_time() - holder["process_started"]) < 1
        return is_it and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, KeyError, TypeError, ValueError):
        return True


def _read(seen: "ObjectHead") -> dict[str, Any]:
    try:
        found = json.loads(seen.note)
    except ValueError:
        found = None
    return {"owner": "another run"} | (found if isinstance(found, dict) else {})
