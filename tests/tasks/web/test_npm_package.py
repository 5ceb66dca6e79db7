"""The package from npm: only the locked content is used, and without a connection one line says what to do."""

import base64
import hashlib
import io
import tarfile

import pytest

from data_contracts.errors import InputError
from tasks.web.npm_package import NpmPackage, locked_package, read_package


def archive_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def package_of(archive):
    return NpmPackage("small", "1.2.3", f"sha512-{base64.b64encode(hashlib.sha512(archive).digest()).decode()}")


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Return a function that installs an npm which runs a script; the cache is empty, and PATH has nothing else."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("AFFWILD2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def install(script):
        program = tmp_path / "bin" / "npm"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return install


@pytest.fixture
def packing(npm, tmp_path):
    """Return a function that lets ``npm pack NAME@VERSION --pack-destination FOLDER`` write an archive."""

    def let_pack(archive):
        (tmp_path / "archive").write_bytes(archive)
        npm(f'/bin/cp "{tmp_path}/archive" "$4/small-1.2.3.tgz"')

    return let_pack


def test_a_package_is_downloaded_once(npm, packing):
    archive = archive_of({"dist/a.js": b"a", "dist/b.js": b"b"})
    package = package_of(archive)
    packing(archive)
    assert read_package(package, ("dist/b.js",)) == {"dist/b.js": b"b"}
    npm("exit 1")
    assert read_package(package, ("dist/a.js",)) == {"dist/a.js": b"a"}


def test_other_content_is_refused_and_not_kept(packing, tmp_path):
    packing(archive_of({"dist/a.js": b"forged"}))
    with pytest.raises(InputError, match=r"small 1\.2\.3: cannot be downloaded .*another content than the locked"):
        read_package(package_of(archive_of({"dist/a.js": b"a"})), ("dist/a.js",))
    assert list((tmp_path / "cache" / "npm").iterdir()) == []


@pytest.mark.usefixtures("npm")
def test_without_npm_one_line_names_the_file_to_bring(tmp_path):
    archive = archive_of({"dist/a.js": b"a"})
    with pytest.raises(
        InputError, match=r"program npm.*or run npm pack small@1\.2\.3 elsewhere and copy the file to"
    ) as raised:
        read_package(package_of(archive), ("dist/a.js",))
    assert "\n" not in str(raised.value)
    (tmp_path / "cache" / "npm" / "small-1.2.3.tgz").write_bytes(archive)
    assert read_package(package_of(archive), ("dist/a.js",)) == {"dist/a.js": b"a"}


def test_the_words_of_npm_are_shown(npm):
    npm("echo 'npm error code ENOTFOUND' >&2\necho 'npm error no network' >&2\nexit 1")
    with pytest.raises(InputError, match=r"cannot be downloaded \(code ENOTFOUND; no network\)"):
        read_package(package_of(b"any"), ("dist/a.js",))


def test_the_lock_has_the_package_with_its_digest():
    package = locked_package("onnxruntime-web")
    assert package.integrity.startswith("sha512-") and package.file_name == f"onnxruntime-web-{package.version}.tgz"
