"""With this folder in ``PYTHONPATH``, every process of Python tells of each connection and each name that it asks for.

It appends a line for each to the file that ``AFFWILD2_CONNECTIONS`` names. Sockets for datagrams are left out: to
"connect" one sends nothing, it is how libraries ask which address this machine has.
"""

import os
import socket
import sys

_FILE = os.open(os.environ["AFFWILD2_CONNECTIONS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def _tell(event: str, arguments: tuple) -> None:
    if event == "socket.connect" and arguments[0].type != socket.SOCK_DGRAM:
        place = arguments[1][0] if isinstance(arguments[1], tuple) else "file"
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        place = arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0]
    else:
        return
    os.write(_FILE, f"{event} {place} {' '.join(sys.argv[:2])}\n".encode())


sys.addaudithook(_tell)
