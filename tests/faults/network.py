"""Hosts to start processes on: this machine, or network namespaces that a switch connects and disconnects.

A sleeping process holds a namespace; the namespace and its network disappear when that process ends. This machine's
own network does not change.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_NETWORK = "10.77.0"


@dataclass(frozen=True)
class Host:
    """An address, and the prefix that runs a command there."""

    name: str
    address: str
    prefix: tuple[str, ...] = ()

    def start(self, command: list[str], *, env: Mapping[str, str] | None = None, **options: object) -> subprocess.Popen:
        """Start a command on the host, in its own session."""
        environment = {**os.environ, **(env or {})}
        return subprocess.Popen([*self.prefix, *command], env=environment, start_new_session=True, **options)


THIS_MACHINE = Host("here", "127.0.0.1")


def kill_session(process: subprocess.Popen) -> None:
    """Kill a process that ``Host.start`` started, with its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def missing_for_namespaces() -> str | None:
    """Return what is missing for network namespaces, or None."""
    if not all(shutil.which(tool) for tool in ("ip", "unshare", "nsenter")):
        return "needs ip (iproute2), unshare and nsenter"
    made = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return None if made.returncode == 0 else "needs root, or unshare --user --map-root-user around the command"


class NetworkSwitch:
    """Hosts in their own namespaces, each with a link to one switch."""

    def __init__(self) -> None:
        self._holders: list[subprocess.Popen] = []
        self._switch = self._hold()
        self._do(self._switch, "ip", "link", "add", "switch", "type", "bridge")
        self._do(self._switch, "ip", "link", "set", "switch", "up")

    def add(self, name: str) -> Host:
        """Add a host; ``name`` has at most 10 letters."""
        holder, number = self._hold(), len(self._holders)
        address = f"{_NETWORK}.{number}"
        add = ("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
        self._do(self._switch, *add)
        self._do(self._switch, "ip", "link", "set", f"to-{name}", "master", "switch", "up")
        for command in (f"addr add {address}/24 dev eth0", "link set eth0 up", "link set lo up"):
            self._do(holder, "ip", *command.split())
        return Host(name, address, self._enter(holder))

    def cut(self, host: Host) -> None:
        """Drop all packets to and from the host, without closing any connection."""
        self._do(self._switch, "ip", "link", "set", f"to-{host.name}", "nomaster")

    def reconnect(self, host: Host) -> None:
        """Forward packets again."""
        self._do(self._switch, "ip", "link", "set", f"to-{host.name}", "master", "switch")

    def close(self) -> None:
        """End the namespaces. Processes in them must have ended before."""
        for holder in self._holders:
            kill_session(holder)

    def _hold(self) -> subprocess.Popen:
        holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo ready; exec sleep 100000"],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._holders.append(holder)
        assert holder.stdout and holder.stdout.readline() == "ready\n"
        return holder

    @staticmethod
    def _enter(holder: subprocess.Popen) -> tuple[str, ...]:
        return ("nsenter", "--target", str(holder.pid), "--net", "--")

    def _do(self, holder: subprocess.Popen, *command: str) -> None:
        subprocess.run([*self._enter(holder), *command], check=True)


@contextlib.contextmanager
def network_switch() -> Iterator[NetworkSwitch]:
    """Create a switch without hosts; remove it and its hosts when the block ends."""
    switch = NetworkSwitch()
    try:
        yield switch
    finally:
        switch.close()
