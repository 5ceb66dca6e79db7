"""``affwild2 serve``: what is served, and above all what is not."""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from data_contracts.errors import InputError
from data_contracts.store.store import Store
from data_contracts.vocabulary import STORE_FILE
from flows.commands.parameters import ReportParameters, ServeParameters, ViewParameters
from flows.pages.report import write_store_report
from flows.pages.serve import HOST, _listen, make_app, serve
from flows.pages.view import view
from tasks.results.prediction_folder import note_folder

SECRETS = {
    ".lock": b"lock",
    STORE_FILE: b"{}",
    "heads/secret/manifest.json": b"{}",
    "reports/.hidden.html": b"hidden",
    "reports/_index.pq": b"index",
    "reports/notes.json": b"{}",
    "submissions/a/.credentials.txt": b"key",
    "other.html": b"other",
}
PAGE, CLIP = b"<!DOCTYPE html><title>report</title>", bytes(range(256)) * 40


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("served") / "store"
    store = Store(str(root))
    for path, data in SECRETS.items():
        store.write_bytes(path, data)
    store.write_bytes("reports/my store/index.html", PAGE)
    store.write_bytes("reports/viewers/a b.é/index.html", PAGE)
    store.write_bytes("reports/viewers/a b.é/video.mp4", CLIP)
    store.write_bytes("submissions/abaw3-expr/abaw3_expr.zip", b"PK\5\6" + bytes(18))
    store.write_bytes("submissions/abaw3-expr/coverage.csv", b"subject\n")
    (root.parent / "secret.txt").write_bytes(b"outside")
    (root.parent / "secret.html").write_bytes(b"outside")
    os.symlink(root.parent / "secret.html", root / "reports" / "link.html")
    os.symlink(root.parent, root / "reports" / "outside")
    os.symlink(root / "heads", root / "submissions" / "heads")
    folder = root.parent / "predictions"
    folder.mkdir()
    note_folder(store, Store(str(folder)))
    (folder / "clip.annotated.mp4").write_bytes(CLIP)
    (folder / "clip.csv").write_bytes(b"frame\n")
    os.symlink(root.parent / "secret.txt", folder / "out.annotated.mp4")
    return store


@contextmanager
def served(store):
    """Serve in a thread of this process, and yield a function that requests a path as it is written."""
    import uvicorn

    with _listen(0) as listener:
        server = uvicorn.Server(uvicorn.Config(make_app(store), log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        port = listener.getsockname()[1]

        def request(path, method="GET", host=f"{HOST}:{port}", **headers):
            connection = http.client.HTTPConnection(HOST, port, timeout=60)
            connection.putrequest(method, path, skip_host=True)
            connection.putheader("Host", host)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            body = response.read()
            connection.close()
            return response, body

        request.address = f"{HOST}:{port}"
        try:
            yield request
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def request_(store):
    with served(store) as request:
        yield request


@pytest.mark.parametrize(
    ("path", "kind", "data"),
    [
        ("/reports/my%20store/", "text/html; charset=utf-8", PAGE),
        ("/reports/my%20store/index.html", "text/html; charset=utf-8", PAGE),
        ("/reports/viewers/a%20b.%C3%A9/", "text/html; charset=utf-8", PAGE),
        ("/reports/viewers/a%20b.%C3%A9/video.mp4", "video/mp4", CLIP),
        ("/submissions/abaw3-expr/coverage.csv", "text/csv; charset=utf-8", b"subject\n"),
        ("/submissions/abaw3-expr/abaw3_expr.zip", "application/zip", b"PK\5\6" + bytes(18)),
        ("/annotated/1/clip.annotated.mp4", "video/mp4", CLIP),
    ],
)
def test_reports_viewers_submissions_and_annotated_videos_are_served(request_, path, kind, data):
    response, body = request_(path)
    assert (response.status, response.headers["Content-Type"], body) == (200, kind, data)
    assert response.headers["X-Content-Type-Options"] == "nosniff" and response.headers["X-Frame-Options"] == "DENY"
    assert ("attachment" in response.headers.get("Content-Disposition", "")) == path.endswith(".zip")
    head, nothing = request_(path, "HEAD")
    assert head.status == 200 and head.headers["Content-Length"] == str(len(data)) and nothing == b""


def test_the_index_links_everything_that_is_served(request_):
    response, body = request_("/")
    text = body.decode()
    assert response.status == 200 and "affwild2" in text
    for link in (
        "/reports/my%20store/",
        "/reports/viewers/a%20b.%C3%A9/",
        "/annotated/1/clip.annotated.mp4",
        "/submissions/abaw3-expr/abaw3_expr.zip",
    ):
        assert f'href="{link}"' in text
        assert request_(link)[0].status == 200
    shown = text[text.index("<main>") : text.index("</main>")]
    assert not [word for word in ("heads", "hidden", "credentials", "secret", "notes.json") if word in shown]


def test_players_get_the_bytes_that_they_ask_for(request_):
    path = "/annotated/1/clip.annotated.mp4"
    for wanted, first, last in (
        ("bytes=100-199", 100, 199),
        ("bytes=10000-", 10000, 10239),
        ("bytes=-40", 10200, 10239),
    ):
        response, body = request_(path, Range=wanted)
        assert (response.status, body) == (206, CLIP[first : last + 1])
        assert response.headers["Content-Range"] == f"bytes {first}-{last}/10240"
    assert request_(path, Range="bytes=99999-")[0].status == 416


def test_folders_are_asked_for_with_a_slash(request_):
    for path, wanted in (("/reports/my%20store", "/reports/my%20store/"), ("/reports/viewers/a%20b.%C3%A9", None)):
        response, _ = request_(path)
        assert response.status == 307 and response.headers["Location"] == (wanted or f"{path}/")


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/reports/../../secret.txt",
        "/reports/../heads/secret/manifest.json",
        "/reports/%2e%2e/%2e%2e/secret.txt",
        "/reports/..%2f..%2fsecret.txt",
        "/reports/%252e%252e/secret.txt",
        "/reports/..\\..\\secret.txt",
        "/reports/%5c..%5csecret.html",
        "//etc/passwd",
        "/reports//etc/passwd",
        "/reports/%2fetc%2fpasswd",
        "/etc/passwd",
        "/reports/my%20store/index.html%00.png",
        "/reports/link.html",
        "/reports/outside/secret.html",
        "/submissions/heads/secret/manifest.json",
        "/annotated/1/out.annotated.mp4",
        "/annotated/1/clip.csv",
        "/annotated/1/../secret.txt",
        "/annotated/2/clip.annotated.mp4",
        "/annotated/-1/clip.annotated.mp4",
        "/reports/",
        "/reports",
        "/submissions/",
        *(f"/{path}" for path in SECRETS),
    ],
)
def test_nothing_else_is_served(request_, path):
    response, body = request_(path)
    assert response.status == 404 and body == b"Not found"


def test_other_methods_and_names_of_the_server_are_refused(request_):
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        assert request_("/reports/my%20store/", method)[0].status == 405
    for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:8420", "", "[::1]"):
        assert request_("/reports/my%20store/", host=host)[0].status == 400
    assert request_("/", host="localhost:1234")[0].status == 200


def test_wrong_requests_are_reported_in_one_line(store, tmp_path):
    with pytest.raises(InputError, match="store"):
        serve(ServeParameters(store=str(tmp_path / "nothing")))
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port}: expected a free port, got: another program uses it"):
            serve(ServeParameters(store=store.url, port=port))


def test_the_command_prints_its_address_and_ends_on_ctrl_c(tmp_path):
    Store(str(tmp_path)).write_bytes(STORE_FILE, b"{}")
    command = [sys.executable, "-m", "flows.commands.command_line", "serve", str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        lines = [process.stdout.readline(), process.stdout.readline()]
        assert "the store has no report yet" in lines[0] and f"at http://{HOST}:" in lines[1]
        port = int(lines[1].split(f"{HOST}:")[1].split("/")[0])
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            connection = http.client.HTTPConnection(HOST, port, timeout=60)
            connection.request("GET", "/")
            if connection.getresponse().status == 200:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "server ended\n", "")


def test_a_store_on_s3_is_served_in_pieces(s3_bucket):
    store = Store(f"{s3_bucket}/store")
    for path, data in (SECRETS | {"reports/a/index.html": PAGE, "reports/a/video.mp4": CLIP}).items():
        store.write_bytes(path, data)
    with served(store) as request:
        assert request("/reports/a/")[1] == PAGE
        response, body = request("/reports/a/video.mp4", Range="bytes=5-9")
        assert (response.status, body, response.headers["Content-Range"]) == (206, CLIP[5:10], "bytes 5-9/10240")
        assert request("/reports/a/video.mp4")[1] == CLIP
        assert request("/reports/a/video.mp4", Range="bytes=20000-")[0].status == 416
        head, nothing = request("/reports/a/video.mp4", "HEAD")
        assert head.headers["Content-Length"] == "10240" and nothing == b""
        assert request("/")[0].status == 200 and request("/reports/a")[0].status == 307
        for path in SECRETS:
            assert request(f"/{path}")[0].status == 404


@pytest.mark.service
def test_links_lead_from_the_index_over_a_report_to_a_playing_viewer(demo, tmp_path):
    from tests.browser import running_browser

    # The videos lie outside the store, as usual.
    store = Store(str(shutil.copytree(demo.store, tmp_path / "store")))
    assert view(ViewParameters(["validation02"], store=store.url)) == 0
    assert write_store_report(ReportParameters(store.url)) == 0
    with served(store) as request, running_browser() as browser:
        opened = browser.open(f"http://{request.address}/")
        opened.page.get_by_role("link", name="store", exact=True).click()
        opened.page.get_by_role("link", name="validation02").first.click()
        opened.page.wait_for_selector("#timeline[data-ready]")
        opened.wait_until("document.getElementById('video').readyState >= 2")
        opened.page.keyboard.press("End")
        opened.wait_until("document.getElementById('timeline').dataset.presented == 48")
        assert urlsplit(opened.page.url).path == "/reports/viewers/validation02/index.html"
        opened.check()
        video, side = (opened.page.locator(one).bounding_box() for one in (".screen", ".side"))
        assert side["x"] >= video["x"] + video["width"], "values are beside the video"
