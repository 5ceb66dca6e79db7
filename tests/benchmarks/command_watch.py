"""Watch a command and all processes that it starts: time, processor time, memory, temporary files and silence."""

import contextlib
import ctypes
import os
import pty
import resource
import select
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# A sample of a process that maps gigabytes takes tens of milliseconds.
_SAMPLE_SECONDS = 0.5
_TICKS = os.sysconf("SC_CLK_TCK")
_NO_BYTECODE = ("PYTHONDONTWRITEBYTECODE",)
# PR_SET_CHILD_SUBREAPER of Linux.
_SUBREAPER = 36


@dataclass(frozen=True)
class Counted:
    """Time of a command, processor time of all its processes, and cores that other programs used meanwhile."""

    seconds: float
    cpu_seconds: float
    other_cores: float


def run_counted(command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> Counted:
    """Run a command, which must succeed, and count the processor time of its processes exactly.

    Processes whose parents end first become children of this process. It must have no other children. The command may
    keep Python's compiled modules, as most users let it.
    """
    environment = {key: value for key, value in (environment or os.environ).items() if key not in _NO_BYTECODE}
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    started, busy, before = time.monotonic(), _busy_seconds(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, env=environment)
    seconds, busy = time.monotonic() - started, _busy_seconds() - busy
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Counted(seconds, cpu_seconds, max(busy - cpu_seconds, 0.0) / seconds)


@dataclass(frozen=True)
class Watched:
    """What a command needed.

    Attributes:
        cpu_seconds: user and system time of all processes.
        other_cores: cores that other programs used meanwhile.
        peak_mb: largest sum of the proportional set sizes of all processes. Pages of mapped files are included.
        anonymous_mb: the part of the memory that the kernel cannot take back, at its own peak.
        temporary_mb: largest size of the folder of temporary files.
        silent_seconds: longest time without output on a terminal.
        silent_after: the last line before it.
    """

    exit_code: int
    seconds: float
    cpu_seconds: float
    other_cores: float
    peak_mb: float
    anonymous_mb: float
    temporary_mb: float
    silent_seconds: float
    silent_after: str
    output: str


def watch(command: Sequence[str], *, temporary: Path, environment: Mapping[str, str]) -> Watched:
    """Run a command on a terminal in a session of its own, with ``temporary`` as its folder of temporary files."""
    controller, terminal = pty.openpty()
    started, busy = time.monotonic(), _busy_seconds()
    process = subprocess.Popen(
        command,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        env={**environment, "TMPDIR": str(temporary), "COLUMNS": "160"},
    )
    os.close(terminal)
    usage = _Usage(process.pid, temporary)
    sampler = threading.Thread(target=usage.sample_until_end)
    sampler.start()
    output = bytearray()
    silent, silent_after, heard_at = 0.0, "", started
    while True:
        ready, _, _ = select.select([controller], [], [], 1.0)
        if not ready:
            continue
        try:
            part = os.read(controller, 65536)
        except OSError:
            part = b""
        now = time.monotonic()
        if now - heard_at > silent:
            lines = bytes(output[-2000:]).decode(errors="replace").split()
            silent, silent_after = now - heard_at, " ".join(lines)[-80:]
        heard_at = now
        if not part:
            break
        output += part
    exit_code = process.wait()
    seconds, busy = time.monotonic() - started, _busy_seconds() - busy
    usage.ended.set()
    sampler.join()
    os.close(controller)
    return Watched(
        exit_code,
        seconds,
        usage.cpu_seconds,
        max(busy - usage.cpu_seconds, 0.0) / seconds,
        usage.peak_mb,
        usage.anonymous_mb,
        usage.temporary_mb,
        silent,
        silent_after,
        output.decode(errors="replace"),
    )


class _Usage:
    def __init__(self, session: int, temporary: Path) -> None:
        self._session, self._temporary = session, temporary
        self._cpu: dict[tuple[int, str], float] = {}
        self.peak_mb = self.anonymous_mb = self.temporary_mb = 0.0
        self.ended = threading.Event()

    @property
    def cpu_seconds(self) -> float:
        return sum(self._cpu.values())

    def sample_until_end(self) -> None:
        while not self.ended.wait(_SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        total = anonymous = 0
        deleted: dict[str, int] = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) != self._session:
                    continue
                # A process that ended keeps its last value: at most one interval is lost.
                self._cpu[int(folder.name), fields[19]] = (int(fields[11]) + int(fields[12])) / _TICKS
                sizes = dict(line.split(":") for line in (folder / "smaps_rollup").read_text().splitlines()[1:])
                deleted |= _deleted_files(folder / "maps", self._temporary)
            except (OSError, ValueError):
                continue
            total += int(sizes["Pss"].split()[0])
            anonymous += int(sizes["Pss_Anon"].split()[0])
        self.peak_mb = max(self.peak_mb, total * 1024 / 1e6)
        self.anonymous_mb = max(self.anonymous_mb, anonymous * 1024 / 1e6)
        self.temporary_mb = max(self.temporary_mb, disk_mb(self._temporary) + sum(deleted.values()) / 1e6)


def _busy_seconds() -> float:
    """Return the time that the processors of the machine were busy: user, nice, system, interrupts."""
    user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:8])
    return (user + nice + system + sum(interrupts)) / _TICKS


def _deleted_files(maps: Path, below: Path) -> dict[str, int]:
    """Return inode -> bytes of deleted files that a process still maps, and that therefore still take space."""
    found = {}
    for line in maps.read_text().splitlines():
        if line.endswith(" (deleted)") and f" {below}/" in line:
            addresses, _, _, _, inode, *_ = line.split()
            first, last = (int(part, 16) for part in addresses.split("-"))
            found[inode] = last - first
    return found


def disk_mb(folder: Path) -> float:
    """Return the space that the files below a folder take on the disk."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_blocks * 512
            except OSError:
                continue
    return total / 1e6
