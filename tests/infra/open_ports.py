"""Ports of processes, and whether they accept a client without the certificate of a Dask cluster."""

import contextlib
import os
import socket
import ssl
from collections.abc import Iterable
from pathlib import Path

import psutil

_TIMEOUT_SECONDS = 10.0


def ports_of(session: int) -> set[tuple[str, int]]:
    """Return host and port of everything that the processes of a session listen on."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getsid(process.pid) == session:
                found |= {tuple(c.laddr) for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    return found


def accepts(host: str, port: int, *, certificate: Path | None = None) -> bool:
    """Return whether a server that requires TLS sends anything to a client with this certificate, or without any."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate is not None:
        context.load_cert_chain(certificate)
    try:
        with (
            socket.create_connection((host, port), _TIMEOUT_SECONDS) as plain,
            context.wrap_socket(plain) as encrypted,
        ):
            return bool(encrypted.recv(1))
    except (ssl.SSLError, ConnectionError):
        return False


def answers_unencrypted(host: str, port: int) -> bytes:
    """Return the first line of the answer to an HTTP request without encryption; empty if the server closes."""
    with socket.create_connection((host, port), _TIMEOUT_SECONDS) as plain:
        plain.sendall(b"GET /info/main/workers.html HTTP/1.0\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            return plain.recv(4096).partition(b"\r\n")[0]
    return b""


def open_to_anyone(ports: Iterable[tuple[str, int]], *, other_certificate: Path) -> list[str]:
    """Return the ports that serve a client without encryption, without a certificate or with another cluster's."""
    found = []
    for host, port in ports:
        answer = answers_unencrypted(host, port)
        if answer and b" 404 " not in answer:
            found.append(f"{host}:{port} without encryption: {answer!r}")
        if answer and not host.startswith("127."):
            found.append(f"{host}:{port} is a page on a network")
        found += [
            f"{host}:{port} with certificate {certificate}"
            for certificate in (None, other_certificate)
            if not answer and accepts(host, port, certificate=certificate)
        ]
    return found
