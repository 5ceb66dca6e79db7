"""Downloads over HTTP: complete, interrupted, resumed, forged and refused."""

import dataclasses
import http.server
import threading

import pytest
import torch

import models.weight_files.catalogue
import tasks.fetch_weights
from data_contracts.errors import InputError
from models.backbones.network import build_network, load_backbone
from models.backbones.registry import get_spec
from models.weight_files.catalogue import CATALOGUE, git_blob_id
from tasks.extract.embed_faces import BackboneChoice
from tasks.fetch_weights import convert_file, fetch_weights, installed_path

NAME = "enet_b0_8_best_vgaf"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers.get("Range"))
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

    def log_message(self, *_):
        pass


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
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.content, running.status, running.cuts, running.ranges = source.read_bytes(), 200, 0, []
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setenv("AFFWILD2_WEIGHTS_URL", f"http://127.0.0.1:{running.server_port}/")
        monkeypatch.setenv("AFFWILD2_CACHE", str(tmp_path / "cache"))
        yield running
        running.shutdown()


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
