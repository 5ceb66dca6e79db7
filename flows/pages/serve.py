"""``affwild2 serve``: show the reports, viewers, submissions and annotated videos of a store in a browser.

Only reads, only on this machine, and only files of the folders and kinds listed here.
"""

import contextlib
import errno
import os
import posixpath
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from data_contracts.errors import InputError
from data_contracts.files.credentials import hide_credentials
from data_contracts.files.inputs import NO_FILE, file_state
from data_contracts.files.locations import Location, location
from data_contracts.store.contents import REPORT_PAGE, VIEWERS, require_store
from data_contracts.store.store import Store
from data_contracts.vocabulary import ANNOTATED_SUFFIX
from flows.commands.parameters import ServeParameters
from flows.engine.console import print_line
from tasks.extract.index_videos import details_of_videos
from tasks.pages.page import render_page
from tasks.pages.table import Link, Table, Tenths
from tasks.results.prediction_folder import noted_folders

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

HOST = "127.0.0.1"
# Names by which a browser on this machine reaches the server. Others are those of a page that rebinds its name.
_HOSTS = ["127.0.0.1", "localhost"]
# Folders of a store whose files are shown, and kinds of these files.
FOLDERS = ("reports", "submissions", "reproduction")
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".zip": "application/zip",
}
_PAGE = f"/{REPORT_PAGE}"
_NO_REPORT = "none yet; write one: affwild2 report --store STORE"
_NO_VIEWER = "none yet; write them: affwild2 view --store STORE"
_NO_COPY = "none yet; write them: affwild2 score VIDEOS --out FOLDER --annotate"
# Pages bring their own policy for scripts; this one applies to every answer.
_POLICY = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; object-src 'none'"
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-cache",
}
_PIECE_BYTES = 1 << 20
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
# The list of the videos that viewers show is read again after this time.
_VIDEOS_SECONDS = 10.0


def serve(parameters: ServeParameters) -> int:
    """Serve the store until the command is interrupted.

    Raises:
        InputError: there is no store at the URL, or another program uses the port.
        StoreError: S3 does not answer.
    """
    store = Store(parameters.store)
    store.check_reachable()
    require_store(store)
    with _listen(parameters.port) as listener:
        port = listener.getsockname()[1]
        if not any(name != "viewers" for name in store.list_folder("reports")):
            print_line(f"note: the store has no report yet; write one: affwild2 report --store {store.url}")
        print_line(f"serving {hide_credentials(store.url)} at http://{HOST}:{port}/ (Ctrl-C ends it)", is_result=True)
        _run(make_app(store), listener)
    print_line("server ended")
    return 0


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        # Only then does the system report another program on the port.
        listener.listen()
    except OSError as error:
        listener.close()
        got = "another program uses it" if error.errno == errno.EADDRINUSE else error.strerror
        raise InputError(f"--port {port}: expected a free port, got: {got}; choose another one") from error
    return listener


def _run(app: "Starlette", listener: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, lifespan="off", timeout_graceful_shutdown=1
    )
    # The server ends on SIGINT or SIGTERM, and then raises the signal again.
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


def make_app(store: Store) -> "Starlette":
    """Return the application that serves a store."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    site = _Site(store)
    return Starlette(
        routes=[Route("/{path:path}", site.answer, methods=["GET"])],
        middleware=[
            Middleware(_SecurityHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS, www_redirect=False),
        ],
    )


class _SecurityHeaders:
    """Adds ``_HEADERS`` to every answer, errors included."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        await self._app(scope, receive, send_with_headers)


@dataclass(frozen=True)
class _Found:
    """A file to send: where it is, its media type, and the name under which a browser saves it, if it should."""

    place: Location
    media_type: str
    saved_as: str | None = None


class _Site:
    """Finds what a request asks for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._videos: dict[str, Path] = {}
        self._videos_read_at = float("-inf")

    async def answer(self, request: "Request") -> "Response":
        """Answer a request for a file, or for the index."""
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse

        path = request.path_params["path"]
        if not path:
            return HTMLResponse(await run_in_threadpool(self._index))
        found = await run_in_threadpool(self._find, path)
        if found is None:
            return PlainTextResponse("Not found", status_code=404)
        if isinstance(found, str):
            return RedirectResponse(found, status_code=307)
        return await run_in_threadpool(_send, found, request.headers.get("range"))

    def _index(self) -> str:
        store = self._store
        pages = [path.removesuffix(REPORT_PAGE) for path in store.files_below("reports") if path.endswith(_PAGE)]
        pages = [path for path in pages if all(map(_is_plain, path.rstrip("/").split("/")))]
        links = [Link(path.rstrip("/").split("/", 1)[1], f"/{quote(path)}") for path in pages]
        reports = [[link] for link in links if not link.text.startswith("viewers/")]
        viewers = [
            [Link(name.removeprefix("viewers/"), target)] for name, target in links if name.startswith("viewers/")
        ]
        tables = [
            Table("Reports", ["report"], reports, _NO_REPORT),
            Table("Viewers", ["video"], viewers, _NO_VIEWER),
            *(Table(*self._annotated_in(number)) for number, _ in self._folders()),
            *(Table(*self._files_in(folder)) for folder in FOLDERS[1:]),
        ]
        return render_page("served.html.jinja", title="affwild2", store=hide_credentials(store.url), tables=tables)

    def _files_in(self, folder: str) -> tuple[str, list[str], list[list[object]], str]:
        """Return caption, header and rows of the table of the files in a folder, and what is shown without any."""
        rows: list[list[object]] = []
        for path, state in self._store.files_below(folder).items():
            parts = path.split("/")
            if all(map(_is_plain, parts)) and posixpath.splitext(path)[1].lower() in _KINDS:
                link = Link("/".join(parts[1:]), f"/{quote(path)}")
                rows.append([link, Tenths(state.size_bytes / 1e3)])
        return folder.capitalize(), ["file", "kB"], rows, "none yet"

    def _find(self, path: str) -> _Found | str | None:
        """Return the file of a path, the path to ask for instead, or None."""
        parts = path.rstrip("/").split("/")
        if any(not _is_plain(part) for part in parts):
            return None
        if parts[0] == "annotated":
            return self._find_annotated(parts[1:])
        if parts[0] in FOLDERS and len(parts) > 1:
            return self._find_in_store(parts, has_slash=path.endswith("/"))
        video = self._shown_videos().get(f"/{path}")
        return _Found(video, _KINDS.get(video.suffix.lower(), "video/mp4")) if video else None

    def _find_in_store(self, parts: list[str], *, has_slash: bool) -> _Found | str | None:
        relative = "/".join(parts)
        if "." not in parts[-1] or has_slash:
            page = self._existing(f"{relative}/{REPORT_PAGE}")
            if page is None:
                return None
            return _Found(page, _KINDS[".html"]) if has_slash else f"/{quote(relative)}/"
        kind = _KINDS.get(posixpath.splitext(relative)[1].lower())
        place = self._existing(relative) if kind else None
        if kind is None or place is None:
            # The name of a report or of a video may contain a dot.
            return f"/{quote(relative)}/" if self._existing(f"{relative}/{REPORT_PAGE}") else None
        return _Found(place, kind, parts[-1] if kind == _KINDS[".zip"] else None)

    def _existing(self, relative: str) -> Location | None:
        """Return the place of a file of the store; None without one, or if links lead out of its folder."""
        place = location(self._store.locate(relative))
        if isinstance(place, Path):
            return _without_links(place, inside=Path(self._store.locate(relative.split("/", 1)[0])))
        return place if file_state(place) != NO_FILE else None

    def _folders(self) -> Iterator[tuple[int, Store]]:
        yield from ((number, Store(place)) for number, place in enumerate(noted_folders(self._store), start=1))

    def _annotated_in(self, number: int) -> tuple[str, list[str], list[list[object]], str]:
        """Return the same for the annotated videos in a folder of predictions."""
        folder, names = dict(self._folders())[number], []
        with contextlib.suppress(OSError):
            names = [name for name in folder.list_folder("") if name.endswith(ANNOTATED_SUFFIX) and _is_plain(name)]
        rows: list[list[object]] = [
            [Link(name.removesuffix(ANNOTATED_SUFFIX), f"/annotated/{number}/{quote(name)}")] for name in names
        ]
        return f"Annotated videos in {hide_credentials(folder.root)}", ["video"], rows, _NO_COPY

    def _find_annotated(self, parts: list[str]) -> _Found | None:
        if len(parts) != 2 or not parts[0].isdecimal() or not parts[1].endswith(ANNOTATED_SUFFIX):
            return None
        folder = dict(self._folders()).get(int(parts[0]))
        if folder is None:
            return None
        place = location(folder.locate(parts[1]))
        if isinstance(place, Path):
            real = _without_links(place, inside=place.parent)
            return _Found(real, _KINDS[".mp4"]) if real else None
        return _Found(place, _KINDS[".mp4"]) if file_state(place) != NO_FILE else None

    def _shown_videos(self) -> dict[str, Path]:
        """Return the indexed videos that viewers link, by the paths that a browser makes of these links."""
        if time.monotonic() - self._videos_read_at > _VIDEOS_SECONDS and self._store.is_local:
            viewers, found = set(self._store.list_folder(VIEWERS)), {}
            for name, details in details_of_videos(self._store).items() if viewers else ():
                place = location(details.path)
                folder = next((one for one in (name, quote(name, safe="")) if one in viewers), None)
                if folder and isinstance(place, Path) and place.is_file():
                    relative = os.path.relpath(place, self._store.locate(f"{VIEWERS}/{folder}"))
                    found[posixpath.normpath(f"/{VIEWERS}/{folder}/{relative}")] = place
            self._videos, self._videos_read_at = found, time.monotonic()
        return self._videos


def _is_plain(name: str) -> bool:
    """Return whether a part of a path is a usual name: not hidden, and nothing that leads elsewhere."""
    return (
        bool(name)
        and not name.startswith((".", "_", "~"))
        and not any(one in name for one in "\\\0")
        and name.isprintable()
    )


def _without_links(place: Path, *, inside: Path) -> Path | None:
    """Return the real path of a regular file if it lies inside a folder; else None."""
    try:
        real = place.resolve(strict=True)
        return real if real.is_file() and real.is_relative_to(inside.resolve(strict=True)) else None
    except (OSError, RuntimeError):
        return None


def _send(found: _Found, wanted: str | None) -> "Response":
    from starlette.responses import FileResponse

    if isinstance(found.place, Path):
        return FileResponse(found.place, media_type=found.media_type, filename=found.saved_as)
    return _send_object(found, wanted)


def _send_object(found: _Found, wanted: str | None) -> "Response":
    """Stream a file from S3, or the range of bytes that a browser wants of it."""
    from starlette.concurrency import iterate_in_threadpool
    from starlette.responses import Response, StreamingResponse

    size = file_state(found.place).size_bytes
    first, end, status = 0, size, 200
    headers = {"Accept-Ranges": "bytes"}
    if found.saved_as:
        headers["Content-Disposition"] = f"attachment; filename*=utf-8''{quote(found.saved_as)}"
    if wanted and (match := _RANGE.fullmatch(wanted.strip())) and any(match.groups()):
        begins, ends = match.groups()
        first = int(begins) if begins else max(0, size - int(ends))
        end = min(size, int(ends) + 1) if begins and ends else size
        if first >= end:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
        status, headers["Content-Range"] = 206, f"bytes {first}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - first)
    pieces: AsyncIterator[bytes] = iterate_in_threadpool(_read_pieces(found.place, first, end))
    return StreamingResponse(pieces, status, headers, media_type=found.media_type)


def _read_pieces(place: Any, first: int, end: int) -> Iterator[bytes]:
    for start in range(first, end, _PIECE_BYTES):
        yield bytes(place.fs.cat_file(place.path, start=start, end=min(end, start + _PIECE_BYTES)))
