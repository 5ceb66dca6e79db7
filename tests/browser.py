"""A headless Chromium that opens pages and records their errors, console messages and requests."""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import BrowserType, ConsoleMessage, Page, Request, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_MOST_MILLISECONDS = 60_000
_NO_REQUEST = ("data", "blob", "about")


def find_chromium() -> str:
    """Return the path of the browser: the one in ``CHROMIUM``, or the first on the path.

    Raises:
        RuntimeError: there is none.
    """
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None or not shutil.which(found):
        raise RuntimeError(f"no Chromium found ({found or ', '.join(_NAMES)}): run make browser")
    return found


@dataclass
class OpenedPage:
    """A page, and what happened in it since it was opened.

    Attributes:
        page: Playwright's page: clicks, keys, hover, evaluation of scripts, screenshots.
        faults: errors and warnings of the console, uncaught errors of scripts, requests that failed.
        requests: URLs of everything that the page requested, itself included.
    """

    page: Page
    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(_MOST_MILLISECONDS)
        self.page.on("console", self._note_message)
        self.page.on("pageerror", lambda error: self.faults.append(f"uncaught: {error}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", self._note_failure)

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console {message.type}: {message.text}")

    def _note_failure(self, request: Request) -> None:
        # A player aborts a request for a part of a video when it seeks.
        if request.failure != "net::ERR_ABORTED":
            self.faults.append(f"request failed: {request.url} ({request.failure})")

    def wait_until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true. Playwright's own function needs ``eval``, which pages forbid."""
        end = time.monotonic() + _MOST_MILLISECONDS / 1000
        while not self.page.evaluate(condition):
            if time.monotonic() > end:
                raise TimeoutError(f"expected {condition}; faults of the page: {self.faults}")
            self.page.wait_for_timeout(20)

    def outside_requests(self) -> list[str]:
        """Return requests to another place than the page's own: another server, or any server for a local file."""
        own = urlsplit(self.page.url)
        parts = ((url, urlsplit(url)) for url in self.requests)
        return [url for url, one in parts if one.scheme not in _NO_REQUEST and one[:2] != own[:2]]

    def axe_violations(self) -> list[str]:
        """Return the serious and critical violations of axe's rules, a line for each rule with its elements."""
        found = Axe().run(self.page, options={"resultTypes": ["violations"]}).response["violations"]
        return [
            f"{one['id']} ({one['impact']}): {one['help']}: "
            + "; ".join(node["html"][:160] for node in one["nodes"][:5])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]

    def check(self) -> None:
        """Assert that the page has no fault, requests nothing from outside, and has no serious violation for axe."""
        outside = [f"request to another place: {url}" for url in self.outside_requests()]
        found = [*self.faults, *outside, *self.axe_violations()]
        if found:
            raise AssertionError("\n".join(found))


class Browser:
    """A running Chromium. Each page has its own profile."""

    def __init__(self, chromium: Chromium) -> None:
        self.chromium = chromium

    def started_again(self, *arguments: str) -> AbstractContextManager["Browser"]:
        """Start a second Chromium, with arguments of its command line."""
        return _launched(self.chromium.browser_type, arguments)

    def open(
        self,
        place: Path | str,
        *,
        dark: bool = False,
        width: int = 1280,
        height: int = 900,
        permissions: Sequence[str] = (),
    ) -> OpenedPage:
        """Open a file or URL and wait until it is loaded. ``width`` 390 emulates a phone; ``dark`` the dark mode.

        ``permissions``: what the user allows, such as ``camera``.
        """
        is_phone = width < 600
        context = self.chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            device_scale_factor=2 if is_phone else 1,
            is_mobile=is_phone,
            has_touch=is_phone,
            reduced_motion="reduce",
            permissions=list(permissions),
        )
        opened = OpenedPage(context.new_page())
        opened.page.goto(place.absolute().as_uri() if isinstance(place, Path) else place)
        return opened


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Start Chromium, and end it with all its pages.

    While it runs, ``asyncio.run`` raises in this thread: make everything that a page needs before, or in a process.
    """
    with sync_playwright() as playwright, _launched(playwright.chromium) as browser:
        yield browser


@contextmanager
def _launched(kind: BrowserType, arguments: Sequence[str] = ()) -> Iterator[Browser]:
    chromium = kind.launch(executable_path=find_chromium(), args=["--disable-gpu", *arguments])
    try:
        yield Browser(chromium)
    finally:
        chromium.close()
