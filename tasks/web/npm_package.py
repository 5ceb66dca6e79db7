"""Download packages of package-lock.json by npm, verify them, and read their files."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from data_contracts.errors import InputError
from data_contracts.files.credentials import hide_credentials
from data_contracts.settings import read_settings
from tasks.fetch_weights import DownloadError

_NPM_SECONDS = 600


@dataclass(frozen=True)
class NpmPackage:
    """A package of the lock file. ``integrity``: sha512 of its archive in base64, after ``sha512-``."""

    name: str
    version: str
    integrity: str

    @property
    def file_name(self) -> str:
        """Name of the package's archive, as npm writes it."""
        return f"{self.name}-{self.version}.tgz"

    def matches(self, archive: Path) -> bool:
        """Return whether a file is the archive of this package."""
        with open(archive, "rb") as file:
            digest = hashlib.file_digest(file, "sha512").digest()
        return self.integrity == f"sha512-{base64.b64encode(digest).decode()}"


def locked_package(name: str) -> NpmPackage:
    """Return a package of package-lock.json."""
    lock = json.loads((resources.files("tasks.web") / "package-lock.json").read_text())
    entry = lock["packages"][f"node_modules/{name}"]
    return NpmPackage(name, entry["version"], entry["integrity"])


def read_package(package: NpmPackage, paths: tuple[str, ...]) -> dict[str, bytes]:
    """Return files of a package, which is downloaded unless the cache folder has it.

    npm downloads it, with its settings for registry, proxy and credentials.

    Raises:
        InputError: it cannot be downloaded, or has another content.
    """
    archive = read_settings().cache_folder / "npm" / package.file_name
    if not archive.exists() or not package.matches(archive):
        _fetch(package, archive)
    with tarfile.open(archive) as opened:
        members = {path: opened.extractfile(f"package/{path}") for path in paths}
        return {path: member.read() for path, member in members.items() if member is not None}


def _fetch(package: NpmPackage, archive: Path) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".unfinished-") as scratch:
        written = Path(scratch) / package.file_name
        try:
            _pack_with_npm(package, written)
            if not package.matches(written):
                raise DownloadError("got another content than the locked one")
        except DownloadError as error:
            raise InputError(
                f"{package.name} {package.version}: cannot be downloaded ({error}); install Node.js with "
                f"npm, or run npm pack {package.name}@{package.version} elsewhere and copy the file to {archive}"
            ) from error
        os.replace(written, archive)


def _pack_with_npm(package: NpmPackage, target: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise DownloadError("expected the program npm, found none")
    command = [npm, "pack", f"{package.name}@{package.version}", "--pack-destination", str(target.parent)]
    options = ["--loglevel=error", "--fetch-retries=1", "--ignore-scripts"]
    try:
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=_NPM_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DownloadError(str(error)) from error
    if done.returncode or not target.exists():
        lines = [line.removeprefix("npm error ") for line in done.stderr.splitlines() if line.strip()]
        raise DownloadError(hide_credentials("; ".join(lines[:3]) or f"npm ended with code {done.returncode}"))
