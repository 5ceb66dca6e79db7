"""A proxy in front of an S3 server that injects faults over real connections, and logs every request.

Each request is forwarded with the headers and bytes of the client. Without faults the proxy only logs.
"""

import contextlib
import http.client
import itertools
import math
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

ERROR_500 = (500, "InternalError", "We encountered an internal error. Please try again.")
SLOW_DOWN = (503, "SlowDown", "Please reduce your request rate.")
DENIED = (403, "AccessDenied", "Access Denied")
# The connection is cut before the server gets the request; after it has answered; during the answer; during the upload.
CUT_BEFORE, CUT_ANSWER, CUT_BODY, CUT_UPLOAD = "cut before", "cut answer", "cut body", "cut upload"
# Half of an upload is sent, then ``FlakyS3.half_sent`` is set; the rest is sent when ``FlakyS3.go_on`` is set.
HELD_UPLOAD = "held upload"
# The answer is sent a few bytes at a time; not at all.
TRICKLE, SILENCE = "trickle", "silence"
_TRICKLE_BYTES, _TRICKLE_SECONDS = 2048, 0.01
_HOP = {"connection", "transfer-encoding", "keep-alive"}
_ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>{}</Message></Error>"


@dataclass
class Fault:
    """A fault for every ``every``-th request whose method and path (with query) match, at most ``times`` times."""

    kind: str | tuple[int, str, str]
    method: str = ".*"
    path: str = ""
    times: float = math.inf
    every: int = 1
    _seen: int = 0

    def strikes(self, method: str, path: str) -> bool:
        """Count a request; return whether the fault applies to it."""
        if not self.times or not re.fullmatch(self.method, method) or not re.search(self.path, path):
            return False
        self._seen += 1
        if self._seen % self.every:
            return False
        self.times -= 1
        return True


@dataclass(frozen=True)
class Request:
    """A logged request: ``seconds`` on the monotonic clock, and the kind of fault that was injected (or None)."""

    seconds: float
    method: str
    path: str
    spoiled: str | tuple[int, str, str] | None
    sent_bytes: int


@dataclass
class FlakyS3:
    """A running proxy: its address, its faults and its log."""

    address: str
    faults: list[Fault] = field(default_factory=list)
    log: list[Request] = field(default_factory=list)
    half_sent: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def spoil(self, *faults: Fault) -> None:
        """Replace the faults, and clear the log."""
        with self._lock:
            self.faults[:], self.log[:] = list(faults), []

    def waits(self) -> list[list[float]]:
        """Return the seconds between the tries of each request that had a fault."""
        spoiled = {(r.method, r.path) for r in self.log if r.spoiled}
        times = {key: [r.seconds for r in self.log if (r.method, r.path) == key] for key in spoiled}
        return [[b - a for a, b in itertools.pairwise(tries)] for tries in times.values()]

    def take(self, method: str, path: str, size: int) -> Fault | None:
        """Log a request; return its fault, if any."""
        with self._lock:
            fault = next((fault for fault in self.faults if fault.strikes(method, path)), None)
            self.log.append(Request(time.monotonic(), method, path, fault.kind if fault else None, size))
            return fault


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: ClassVar[FlakyS3]
    upstream: ClassVar[str]
    ended: ClassVar[threading.Event]

    def log_message(self, *_: object) -> None:
        """Print nothing: the proxy has its own log."""

    def handle_one_request(self) -> None:
        """Handle one request, or the end of the connection."""
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()
            return
        self.close_connection = True

    def _forward(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        fault = self.proxy.take(self.command, self.path, size)
        kind = fault.kind if fault else None
        if kind in (CUT_UPLOAD, HELD_UPLOAD):
            self._upload_in_halves(size, go_on=kind == HELD_UPLOAD)
            return
        body = self.rfile.read(size)
        if isinstance(kind, tuple):
            self._answer(kind[0], {}, _ERROR.format(*kind[1:]).encode())
        elif kind == SILENCE:
            self.ended.wait()
            self._cut()
        elif kind == CUT_BEFORE:
            self._cut()
        else:
            self._forward_to_server(body, kind)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward  # noqa: N815

    def _forward_to_server(self, body: bytes, kind: str | None) -> None:
        server = http.client.HTTPConnection(self.upstream)
        with contextlib.closing(server):
            server.request(self.command, self.path, body, dict(self.headers))
            answer = server.getresponse()
            data, headers = answer.read(), dict(answer.getheaders())
        if kind == CUT_ANSWER:
            self._cut()
        else:
            self._answer(answer.status, headers, data, kind)

    def _answer(self, status: int, headers: dict[str, str], data: bytes, kind: str | None = None) -> None:
        self.send_response_only(status)
        # The answer to a HEAD has a length but no body.
        headers = {"Content-Length": str(len(data))} | headers
        for name, value in headers.items():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if kind == CUT_BODY:
            self.wfile.write(data[: len(data) // 2])
            self._cut()
        elif kind == TRICKLE:
            for start in range(0, len(data), _TRICKLE_BYTES):
                self.wfile.write(data[start : start + _TRICKLE_BYTES])
                time.sleep(_TRICKLE_SECONDS)
        else:
            self.wfile.write(data)

    def _upload_in_halves(self, size: int, *, go_on: bool) -> None:
        """Send half of the body to the server; then cut the connection, or send the rest when ``go_on`` is set."""
        host, port = self.upstream.split(":")
        with socket.create_connection((host, int(port))) as server:
            lines = [f"{self.command} {self.path} HTTP/1.1", *(f"{n}: {v}" for n, v in self.headers.items()), "", ""]
            server.sendall("\r\n".join(lines).encode() + self.rfile.read(size // 2))
            if not go_on:
                self._cut()
                return
            self.proxy.half_sent.set()
            self.proxy.go_on.wait()
            server.sendall(self.rfile.read(size - size // 2))
            answer = http.client.HTTPResponse(server)
            answer.begin()
            self._answer(answer.status, dict(answer.getheaders()), answer.read())

    def _cut(self) -> None:
        """Reset the connection, as a crash does."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Ignore clients that close the connection."""


@contextlib.contextmanager
def flaky_s3(upstream: str) -> Iterator[FlakyS3]:
    """Start a proxy in front of the server at an address (``http://HOST:PORT``), for the length of the block."""
    ended = threading.Event()
    proxy = FlakyS3("")
    parts = {"proxy": proxy, "upstream": urlsplit(upstream).netloc, "ended": ended}
    with _Server(("127.0.0.1", 0), type("Handler", (_Handler,), parts)) as server:
        proxy.address = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield proxy
        finally:
            ended.set()
            server.shutdown()
