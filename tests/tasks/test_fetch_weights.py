"""Downloads over HTTP: complete, interrupted, resumed, forged and refused; from a second origin; through a proxy."""

import contextlib
import dataclasses
import http.server
import threading
import time

import pytest
import torch

import models.weight_files.catalogue
import tasks.fetch_weights
from data_contracts.errors import InputError
from models.backbones.network import build_network, load_backbone
from models.backbones.registry import get_spec
from models.weight_files.catalogue import CATALOGUE, git_blob_id
from tasks.backbones import BackboneChoice
from tasks.fetch_weights import convert_file, fetch_weights, installed_path

NAME = "enet_b0_8_best_vgaf"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers.get("Range"))
        server.asked.append(self.path)
        time.sleep(server.wait_seconds)
        if server.status != 200:
            self.send_error(server.status)
            return
        start = int(self.headers["Range"].split("=")[1].rstrip("-")) if "Range" in self.headers else 0
        data = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if server.cuts:
            server.cuts -= 1
            self.wfile.write(data[: len(data) // 2])
            self.connection.close()
            return
        self.wfile.write(data)

    def do_CONNECT(self):
        self.server.asked.append(self.path)
        self.send_error(self.server.status)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(content=b"", status=200):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.content, running.status, running.cuts, running.wait_seconds = content, status, 0, 0
        running.ranges, running.asked = [], []
        running.url = f"http://127.0.0.1:{running.server_port}"
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serve a network of the right type whose blob id is in the catalogue during the test."""
    source = tmp_path / "served.pt"
    torch.manual_seed(0)
    torch.save(build_network(get_spec(NAME)), source)
    published = dataclasses.replace(CATALOGUE[NAME], blob_id=git_blob_id(source))
    monkeypatch.setitem(CATALOGUE, NAME, published)
    monkeypatch.setattr(models.weight_files.catalogue, "_ENTRIES", (published,))
    monkeypatch.setitem(models.weight_files.catalogue._BY_BACKBONE, NAME, published)
    monkeypatch.setenv("AFFWILD2_CACHE", str(tmp_path / "cache"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with serving(source.read_bytes()) as running:
        monkeypatch.setenv("AFFWILD2_WEIGHTS_URL", f"{running.url}/")
        yield running


@pytest.fixture
def origins(server, monkeypatch):
    """Two origins instead of the repositories on GitHub; the second one is ``server``."""
    with serving(server.content) as first:
        monkeypatch.delenv("AFFWILD2_WEIGHTS_URL")
        monkeypatch.setattr(tasks.fetch_weights, "ORIGINS", (first.url, server.url))
        yield first, server


def test_download_is_verified_converted_and_usable(server):
    seen = []
    path = fetch_weights(NAME, advance=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(server.content), len(server.content))
    assert load_backbone(NAME, weights=path).class_names[1] == "Contempt"
    assert BackboneChoice.find(NAME, None).weights == str(path)
    assert [p.name for p in path.parent.iterdir()] == [path.name], "other files are left in the folder"
    fetch_weights(NAME)
    assert len(server.ranges) == 1, "installed weights were downloaded again"


def test_interrupted_connection_resumes(server):
    server.cuts = 2
    fetch_weights(NAME)
    half = len(server.content) // 2
    assert server.ranges[:2] == [None, f"bytes={half}-"] and len(server.ranges) == 3


def test_failed_download_resumes_in_the_next_call(server):
    server.cuts = 99
    with pytest.raises(InputError, match="cannot be downloaded"):
        fetch_weights(NAME)
    server.cuts = 0
    fetch_weights(NAME)
    assert server.ranges[-1].startswith("bytes=")


def test_other_content_is_refused_and_removed(server):
    server.content = server.content[:-1] + b"!"
    with pytest.raises(InputError, match=r"expected the file with git blob id .* got .*; removed") as caught:
        fetch_weights(NAME)
    assert "\n" not in str(caught.value)
    assert not installed_path(CATALOGUE[NAME]).exists() and not list(tasks.fetch_weights.cache_folder().iterdir())


@pytest.mark.parametrize("status", [404, 500])
def test_http_errors_are_reported(server, status):
    server.status = status
    with pytest.raises(InputError, match=f"HTTP status {status}.*affwild2 models convert FILE"):
        fetch_weights(NAME)


def test_connection_error_suggests_a_manual_copy(server, monkeypatch):
    monkeypatch.setenv("AFFWILD2_WEIGHTS_URL", "http://user:secret@127.0.0.1:9")
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9/.*connection, copy that file here") as caught:
        fetch_weights(NAME)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
    assert str(installed_path(CATALOGUE[NAME])) in str(caught.value)


def test_the_second_origin_is_not_used_without_need(origins):
    first, second = origins
    reported = []
    fetch_weights(NAME, report=reported.append)
    assert reported == [] and first.asked == [f"/{CATALOGUE[NAME].path}"] and second.asked == []


@pytest.mark.parametrize("fault", ["404", "no name", "refused", "silent", "no TLS", "other content", "cut"])
def test_the_second_origin_replaces_a_first_one_that_fails(origins, monkeypatch, fault):
    first, second = origins
    bad = {"no name": "http://name.invalid", "refused": "http://127.0.0.1:9", "no TLS": f"https://{first.url[7:]}"}
    monkeypatch.setattr(tasks.fetch_weights, "ORIGINS", (bad.get(fault, first.url), second.url))
    if fault == "silent":
        # Long enough for the second origin on a busy machine.
        monkeypatch.setattr(tasks.fetch_weights, "_RESPONSE_SECONDS", 1.0)
        monkeypatch.setattr(tasks.fetch_weights, "_MAX_TRIES", 1)
        first.wait_seconds = 5
    first.status = 404 if fault == "404" else 200
    first.cuts = 99 if fault == "cut" else 0
    first.content = b"<html>sign in</html>" if fault == "other content" else first.content
    reported = []
    path = fetch_weights(NAME, report=reported.append)
    assert load_backbone(NAME, weights=path)
    (line,) = reported
    assert line.startswith(tasks.fetch_weights.ORIGINS[0]) and f"; trying {second.url}/models/" in line
    expected = {"404": "HTTP status 404", "other content": "expected the file with git blob id"}
    assert expected.get(fault, ": ") in line and "\n" not in line
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_one_line_names_both_origins_if_both_fail(origins):
    first, second = origins
    first.status, second.content = 404, b"other"
    with pytest.raises(InputError) as caught:
        fetch_weights(NAME, report=lambda line: None)
    message = str(caught.value)
    assert "\n" not in message and str(installed_path(CATALOGUE[NAME])) in message
    assert f"{first.url}/{CATALOGUE[NAME].path}: HTTP status 404; {second.url}/{CATALOGUE[NAME].path}: exp" in message
    assert not list(tasks.fetch_weights.cache_folder().iterdir())


def test_the_rest_of_a_wrong_partial_file_is_not_taken_for_the_fault_of_the_server(server):
    folder = tasks.fetch_weights.cache_folder()
    folder.mkdir(parents=True)
    (folder / f"{CATALOGUE[NAME].blob_id}.partial").write_bytes(b"<html>sign in</html>")
    fetch_weights(NAME)
    assert server.ranges == ["bytes=20-", None]


def test_a_mirror_replaces_both_origins(origins, monkeypatch):
    first, second = origins
    monkeypatch.setenv("AFFWILD2_WEIGHTS_URL", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9/models"):
        fetch_weights(NAME)
    assert first.asked == second.asked == []


def test_proxies_of_the_environment_are_used_and_exceptions_from_them(server, monkeypatch):
    """The proxy is the server itself: a request through a proxy names the whole URL."""
    monkeypatch.setenv("AFFWILD2_WEIGHTS_URL", "http://weights.example")
    monkeypatch.setenv("HTTP_PROXY", server.url)
    path = fetch_weights(NAME)
    assert server.asked == [f"http://weights.example/{CATALOGUE[NAME].path}"]
    path.unlink()
    monkeypatch.setenv("AFFWILD2_WEIGHTS_URL", server.url)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    fetch_weights(NAME)
    assert server.asked[-1] == f"/{CATALOGUE[NAME].path}"


def test_both_real_origins_are_reached_through_the_proxy(server, monkeypatch):
    monkeypatch.delenv("AFFWILD2_WEIGHTS_URL")
    monkeypatch.setenv("HTTPS_PROXY", server.url.replace("//", "//user:secret@"))
    server.status = 502
    reported = []
    with pytest.raises(InputError, match=r"av-savchenko/face.*sb-ai-lab/EmotiEffLib/main/models/affectnet_") as caught:
        fetch_weights(NAME, report=reported.append)
    assert server.asked == ["raw.githubusercontent.com:443"] * 2 and len(reported) == 1
    assert "secret" not in str(caught.value) + reported[0] and "502" in reported[0]


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "ftp://proxy", "http://[::"])
def test_a_proxy_that_cannot_be_used_is_named(server, monkeypatch, proxy):
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(InputError, match="expected proxies with http:// or https://") as caught:
        fetch_weights(NAME)
    assert "\n" not in str(caught.value)


def test_local_file_is_converted(server, tmp_path):
    source = tmp_path / "served.pt"
    converted = convert_file(source)
    assert converted.verified and converted.published.name == NAME
    other = tmp_path / "other.pt"
    torch.save(build_network(get_spec(NAME)), other)
    with pytest.raises(InputError, match="pass the name of its weights with --name"):
        convert_file(other)
    unverified = convert_file(other, name=NAME, out=tmp_path / "own.safetensors")
    assert not unverified.verified and unverified.path.exists()


def test_unknown_names_and_missing_weights_are_reported_in_one_line(server, tmp_path):
    with pytest.raises(InputError, match="expected one of enet_b0_8_best_vgaf"):
        fetch_weights("enet_b9")
    with pytest.raises(InputError, match="run affwild2 models fetch enet_b0_8_best_vgaf"):
        BackboneChoice.find(NAME, None)
    with pytest.raises(InputError, match="found nothing there"):
        convert_file(tmp_path / "typo.pt")
    with pytest.raises(InputError, match="expected one of"):
        BackboneChoice.find("typo", None)
