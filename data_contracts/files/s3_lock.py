"""Lock of a store or folder on S3: an object that names the holder, written conditionally and renewed regularly.

A lock is free if its object is gone, if it has not been renewed for a minute by the clock of the server, or if its
process ran on this machine and has ended. The clocks of the machines need not agree.
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
# A lock that has not been renewed for this long is free.
_LIFETIME_SECONDS = 60.0
_RENEWAL_SECONDS = 15.0
_POLL_SECONDS = 2.0


class S3Lock:
    """The lock of this process on a store, or on another folder (``what``), and the ``name`` of its object.

    Call ``raise_if_lost`` between ``acquire`` and ``release``.
    """

    def __init__(self, files: "S3Files", *, name: str = LOCK, what: str = "store") -> None:
        self._files, self._name, self._what = files, name, what
        self._holder = _describe_process() | {"token": uuid.uuid4().hex}
        self._renewals, self._renewed_at, self._etag = 0, 0.0, ""
        self._lost_to: str | None = None
        self._is_released = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="s3-lock", daemon=True)

    def acquire(self, on_wait: Callable[[str], None]) -> None:
        """Wait for the lock and acquire it. ``on_wait`` is called once with a message that names the holder.

        Raises:
            StoreError: the store cannot be written to.
        """
        is_reported = False
        while not self._try_acquire(head := self._files.head(self._name)):
            if head and not self._is_free(head):
                if not is_reported:
                    owner = _holder_of(head)["owner"]
                    on_wait(f"{self._files.url}: {owner} is using this {self._what}; waiting until it ends")
                    is_reported = True
                time.sleep(_POLL_SECONDS)
        self._renewer.start()

    def raise_if_lost(self) -> None:
        """Check that no other run has acquired the lock.

        Raises:
            StoreError: another run has, because this process could not renew its lock for a minute.
        """
        if self._lost_to is not None:
            raise StoreError(
                f"{self._files.url}: expected to be the only run on this {self._what}, got: {self._lost_to} took it "
                f"over because this run could not renew its lock for {_LIFETIME_SECONDS:.0f} s; run again"
            )

    def release(self) -> None:
        """Release the lock."""
        self._is_released.set()
        if self._renewer.is_alive():
            self._renewer.join(_POLL_SECONDS)
        # If the object cannot be removed now, it expires.
        with contextlib.suppress(StoreError), self._files.short_timeout():
            if self._is_ours(self._files.head(self._name)):
                self._files.remove(self._name)

    def _try_acquire(self, head: "ObjectHead | None") -> bool:
        if head is None:
            return self._write(None)
        # If the answer to our write was lost, its retry finds our own object.
        return self._is_ours(head) or (self._is_free(head) and self._write(head.etag))

    def _write(self, etag: str | None) -> bool:
        self._renewals += 1
        note = json.dumps(self._holder | {"renewals": self._renewals})
        written = self._files.replace_if(self._name, note, etag=etag)
        if written:
            self._etag, self._renewed_at = written, time.monotonic()
        return written is not None

    def _is_ours(self, head: "ObjectHead | None") -> bool:
        if head is None or _holder_of(head).get("token") != self._holder["token"]:
            return False
        self._etag, self._renewed_at = head.etag, time.monotonic()
        return True

    def _is_free(self, head: "ObjectHead") -> bool:
        if head.age_seconds > _LIFETIME_SECONDS:
            return True
        holder = _holder_of(head)
        return holder.get("machine") == self._holder["machine"] and not _is_running(holder)

    def _renew(self) -> None:
        while not self._is_released.wait(_RENEWAL_SECONDS):
            try:
                if self._write(self._etag) or self._is_ours(self._files.head(self._name)):
                    continue
                head = self._files.head(self._name)
                self._lost_to = _holder_of(head)["owner"] if head else "another run"
                return
            except StoreError:
                if time.monotonic() - self._renewed_at > _LIFETIME_SECONDS:
                    self._lost_to = "possibly another run"
                    return


def _describe_process() -> dict[str, Any]:
    return {
        "owner": f"process {os.getpid()} on {socket.gethostname()}",
        "machine": _machine_id(),
        "process": os.getpid(),
        "process_started": round(psutil.Process().create_time(), 1),
    }


def _machine_id() -> str:
    """Return an id that only processes which see each other share: it differs between machines and containers."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
        with open("/proc/sys/kernel/random/boot_id") as file:
            parts.append(file.read().strip())
    return " ".join(parts)


def _is_running(holder: dict[str, Any]) -> bool:
    try:
        process = psutil.Process(holder["process"])
        is_same = abs(process.create_time() - holder["process_started"]) < 1
        return is_same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, KeyError, TypeError, ValueError):
        return True


def _holder_of(head: "ObjectHead") -> dict[str, Any]:
    try:
        found = json.loads(head.note)
    except ValueError:
        found = None
    return {"owner": "another run"} | (found if isinstance(found, dict) else {})
