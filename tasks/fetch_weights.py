"""Download, verify, convert and find published weights on this machine."""

import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_contracts.errors import InputError
from data_contracts.files.archives import TRUNCATED_ZIP, fault_of_zip
from data_contracts.files.credentials import hide_credentials
from data_contracts.settings import read_settings
from models.weight_files.catalogue import (
    ORIGINS,
    PublishedWeights,
    find_by_blob_id,
    find_published,
    git_blob_id,
    published_for,
)

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)
_RESPONSE_SECONDS, _CONNECT_SECONDS = 30.0, 10.0
_MAX_TRIES = 3
Advance = Callable[[int, int], None]


def cache_folder() -> Path:
    """Return the folder of installed weights, which is below ``AFFWILD2_CACHE``."""
    return read_settings().cache_folder / "weights"


def installed_path(published: PublishedWeights) -> Path:
    """Return the path of installed weights, which may not exist: safetensors, or the published file itself."""
    suffix = ".safetensors" if published.is_convertible else Path(published.path).suffix
    return cache_folder() / f"{published.name.removesuffix('.onnx')}{suffix}"


def urls_of(published: PublishedWeights) -> list[str]:
    """Return the URLs of the file in the order to try: its origins, or only the mirror ``AFFWILD2_WEIGHTS_URL``."""
    mirror = read_settings().weights_url
    return [f"{base}/{published.path}" for base in ([mirror] if mirror else ORIGINS)]


def fetch_weights(
    name: str,
    *,
    advance: Advance = lambda done, total: None,
    report: Callable[[str], None] = logger.warning,
) -> Path:
    """Download (continuing an interrupted download), verify, convert and install weights, unless they are installed.

    If an origin cannot be reached or has another content, ``report`` receives a line, and the next origin is tried.
    ``advance`` is called with the number of bytes so far and the size of the file. Proxies are those of the environment
    (``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY``, ``NO_PROXY``).

    Raises:
        InputError: unknown name, or no origin has the published content.
    """
    published = _find(name)
    target = installed_path(published)
    if target.exists():
        return target
    partial = cache_folder() / f"{published.blob_id}.partial"
    partial.parent.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    for url in urls_of(published):
        if failures:
            report(f"{failures[-1]}; trying {hide_credentials(url)}")
        try:
            _download_verified(url, published, partial, advance)
            break
        except DownloadError as error:
            failures.append(f"{hide_credentials(url)}: {error}")
    else:
        raise InputError(
            f"{published.name}: cannot be downloaded ({'; '.join(failures)}); without a connection, copy that file "
            f"here and run affwild2 models convert FILE (installs to {target})"
        )
    _place(partial, published, target, verified=True)
    partial.unlink(missing_ok=True)
    return target


@dataclass(frozen=True)
class Converted:
    """Path of converted weights, their entry in the catalogue, and whether the file had the published content."""

    path: Path
    published: PublishedWeights
    verified: bool


def find_weights(backbone: str, weights: str | None) -> str | None:
    """Return the file with a backbone's weights: the given or the installed one; None for bundled weights.

    Raises:
        InputError: the backbone's weights are published but not installed.
    """
    published = published_for(backbone)
    if weights or published is None:
        return weights
    path = installed_path(published)
    if not path.exists():
        raise InputError(
            f"backbone {backbone}: expected its weights in {path}, found none; "
            f"run affwild2 models fetch {published.name}"
        )
    return str(path)


def convert_file(path: Path, *, name: str | None = None, out: Path | None = None) -> Converted:
    """Convert a file on this machine.

    ``name`` is required only if the content of the file is not a published one.

    Raises:
        InputError: no such file, unknown content without a name, or weights of another architecture.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else "nothing there"
        raise InputError(f"{path}: expected a file with published weights, found {what}")
    known = find_by_blob_id(git_blob_id(path))
    published = _find(name) if name else known
    if published is None:
        with open(path, "rb") as file:
            cause = fault_of_zip(file)
        if cause == TRUNCATED_ZIP:
            raise InputError(f"{path}: expected a file with published weights, got {cause}")
        raise InputError(f"{path}: its content matches no published file; pass the name of its weights with --name")
    target = out or installed_path(published)
    verified = known == published
    _place(path, published, target, verified=verified)
    return Converted(target, published, verified)


def _find(name: str) -> PublishedWeights:
    try:
        return find_published(name)
    except ValueError as error:
        raise InputError(str(error)) from error


def _place(source: Path, published: PublishedWeights, target: Path, *, verified: bool) -> None:
    """Write the usable form under a temporary name, then rename it."""
    try:
        # This needs torch, which a worker that only looks for weights should not import.
        from models.weight_files.conversion import convert_weights

        data = (
            convert_weights(source, published, verified=verified) if published.is_convertible else source.read_bytes()
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    if not published.is_convertible and not verified:
        raise InputError(f"{source}: expected the published {published.name}, got another content")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".unfinished-", delete=False) as file:
        file.write(data)
    os.replace(file.name, target)


class DownloadError(Exception):
    """The reason why a URL does not provide a file."""


def _download_verified(url: str, published: PublishedWeights, partial: Path, advance: Advance) -> None:
    """Complete the partial file. If it then has another content, remove it, and download it again if it was resumed."""
    while True:
        is_resumed = partial.exists()
        download_file(url, partial, advance)
        found = git_blob_id(partial)
        if found == published.blob_id:
            return
        partial.unlink()
        if not is_resumed:
            raise DownloadError(f"expected the file with git blob id {published.blob_id}, got {found}; removed")


def download_file(url: str, partial: Path, advance: Advance = lambda done, total: None) -> None:
    """Download a file, or the rest of it if a part of it exists.

    Raises:
        DownloadError: the URL does not provide it.
    """
    import httpx  # A sixth of the import time of commands, most of which download nothing.

    error = ""
    timeout = httpx.Timeout(_RESPONSE_SECONDS, connect=_CONNECT_SECONDS)
    for _ in range(_MAX_TRIES):
        try:
            done = partial.stat().st_size if partial.exists() else 0
            headers = {"Range": f"bytes={done}-"} if done else {}
            with httpx.stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
                if response.status_code != httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                    _append(response.raise_for_status(), partial, advance)
            return
        except httpx.HTTPStatusError as failure:
            error = f"HTTP status {failure.response.status_code}"
            break
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as failure:
            error = str(failure) or "no connection within the time limit"
            break
        except (httpx.HTTPError, OSError) as failure:
            error = str(failure) or type(failure).__name__
        except (httpx.InvalidURL, ImportError, ValueError) as failure:
            # httpx raises these for proxies in the environment that it cannot use.
            error = f"expected proxies with http:// or https:// in HTTPS_PROXY, HTTP_PROXY and ALL_PROXY: {failure}"
            break
    raise DownloadError(hide_credentials(" ".join(error.split())))


def _append(response: "httpx.Response", partial: Path, advance: Advance) -> None:
    is_resumed = response.status_code == 206
    with open(partial, "ab" if is_resumed else "wb") as file:
        done = file.tell()
        total = done + int(response.headers.get("Content-Length", 0))
        for block in response.iter_bytes():
            file.write(block)
            done += len(block)
            advance(done, total)
