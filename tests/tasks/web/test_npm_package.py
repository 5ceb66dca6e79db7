"""The package from npm: only the locked content is used, and without a connection one line says what to do."""

import base64
import hashlib
import http.server
import io
import tarfile
import threading

import pytest

import tasks.web.npm_package
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
def registry(tmp_path, monkeypatch):
    """A registry that serves one archive, on a machine without npm and with an empty cache folder."""
    served = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = served.get(self.path)
            self.send_response(200 if content else 404)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    monkeypatch.setenv("AFFWILD2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        monkeypatch.setattr(tasks.web.npm_package, "REGISTRY", f"http://127.0.0.1:{running.server_port}")
        yield served
        running.shutdown()


def test_a_package_is_downloaded_once(registry):
    archive = archive_of({"dist/a.js": b"a", "dist/b.js": b"b"})
    package = package_of(archive)
    registry["/small/-/small-1.2.3.tgz"] = archive
    assert read_package(package, ("dist/b.js",)) == {"dist/b.js": b"b"}
    registry.clear()
    assert read_package(package, ("dist/a.js",)) == {"dist/a.js": b"a"}


def test_other_content_is_refused_and_not_kept(registry, tmp_path):
    registry["/small/-/small-1.2.3.tgz"] = archive_of({"dist/a.js": b"forged"})
    with pytest.raises(InputError, match=r"small 1\.2\.3: cannot be downloaded .*another content than the locked"):
        read_package(package_of(archive_of({"dist/a.js": b"a"})), ("dist/a.js",))
    assert list((tmp_path / "cache" / "npm").iterdir()) == []


def test_without_a_connection_one_line_names_the_file_to_bring(registry, tmp_path):
    archive = archive_of({"dist/a.js": b"a"})
    with pytest.raises(InputError, match=r"404.*run npm pack small@1\.2\.3 elsewhere and copy the file to") as raised:
        read_package(package_of(archive), ("dist/a.js",))
    assert "\n" not in str(raised.value)
    (tmp_path / "cache" / "npm" / "small-1.2.3.tgz").write_bytes(archive)
    assert read_package(package_of(archive), ("dist/a.js",)) == {"dist/a.js": b"a"}


def test_npm_downloads_if_it_is_installed(registry, tmp_path):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\necho 'npm error no network' >&2\nexit 1\n")
    npm.chmod(0o755)
    with pytest.raises(InputError, match=r"downloaded from npm \(code ENOTFOUND; no network\)"):
        read_package(package_of(b"any"), ("dist/a.js",))


def test_the_lock_has_the_package_with_its_digest():
    package = locked_package("onnxruntime-web")
    assert package.integrity.startswith("sha512-") and package.file_name == f"onnxruntime-web-{package.version}.tgz"
