"""Credentials of a run are not in its output, its store, or the database of a Prefect server."""

import asyncio
import http.server
import threading

import pytest

from data_contracts.files.locations import location
from tests.processes import run_command
from tests.s3_server import s3_environment
from tests.video_factory import VideoSpec, write_video

pytestmark = pytest.mark.service
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAQJ7XMPLE3ZT5W2VU",
    "AWS_SECRET_ACCESS_KEY": "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",
    "AWS_SESSION_TOKEN": "FwoGZXIvYXdzEJr9fake7SessionToken3Zq8Lm",
}
PASSWORD = "pw-9Xk2fQz7"


class _Telltale(http.server.BaseHTTPRequestHandler):
    """An S3 server that refuses requests and repeats their credentials in the answer, as some servers do."""

    def do_GET(self):
        said = f"denied: {SECRETS['AWS_SECRET_ACCESS_KEY']} {self.headers['Authorization']}"
        said += f" {self.headers['x-amz-security-token']}"
        body = f"<Error><Code>AccessDenied</Code><Message>{said}</Message></Error>".encode()
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        self.do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def telltale():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Telltale)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def database_bytes(server):
    """Bytes of the Prefect server's database files."""
    parts = list((server.folder / "home").glob("prefect.db*"))
    assert parts
    return b"".join(part.read_bytes() for part in parts)


def everything_below(url):
    place = location(url)
    place.fs.invalidate_cache()
    found = place.fs.cat(place.fs.find(place.path))
    return b"".join(name.encode() + data + repr(place.fs.info(name)).encode() for name, data in found.items())


def test_no_credentials_are_stored_or_printed(tmp_path, s3_address, s3_bucket, telltale, prefect_server):
    (tmp_path / "data").mkdir()
    video = write_video(tmp_path / "data" / "clip.mp4", VideoSpec(frame_count=2))
    recorded = {"PREFECT_API_URL": prefect_server.url, "PREFECT_LOGGING_LEVEL": "DEBUG"}
    recorded["PREFECT_LOGGING_TO_API_ENABLED"] = "true"
    plainly, environment = {"PREFECT_API_URL": ""}, s3_environment(s3_address) | SECRETS | recorded
    store, out, printed = f"{s3_bucket}/store", f"{s3_bucket}/out", []

    def run(*arguments, code, **changes):
        finished = run_command(*arguments, "--workers", "1", environment=environment | changes)
        assert finished.returncode == code, finished.stderr
        printed.append(finished.stdout + finished.stderr)
        return finished.stderr

    run("extract", video.parent, "--store", store, code=0)
    refused = run("extract", video.parent, "--store", store, code=2, AWS_ENDPOINT_URL_S3=telltale)
    assert "no permission (denied: *** " in refused
    run("score", video, "--store", store, "--out", out, code=0, **plainly)
    with_user = plainly | {"AWS_ENDPOINT_URL_S3": f"http://lab:{PASSWORD}@127.0.0.1:9"}
    assert "***@127.0.0.1:9" in run("score", video, "--store", store, "--out", out, code=2, **with_user)
    key, secret = SECRETS["AWS_ACCESS_KEY_ID"], SECRETS["AWS_SECRET_ACCESS_KEY"]
    url = f"s3://{key}:{secret}@bucket/store"
    for arguments in (("extract", url, "--store", store), ("score", video, "--out", url)):
        assert "expected a URL without credentials, got 's3://***@bucket/store'" in run(*arguments, code=2)
    _refused_by_the_server(url, store)

    stored = database_bytes(prefect_server)
    assert str(video.parent).encode() in stored and store.encode() in stored, "the runs are in there"
    local = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    places = {"store": everything_below(s3_bucket), "database": stored, "files": local}
    places["printed"] = "".join(printed).encode()
    assert b"predict_persons" in places["printed"] and b"clip.parquet" in places["store"]
    for name in (*SECRETS.values(), PASSWORD):
        assert [place for place, data in places.items() if name.encode() in data] == [], name


def _refused_by_the_server(url, store):
    """Start a deployment with a key in a URL. The server must check the pattern before it stores the parameters."""
    from prefect import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    from flows import deployments

    identity = deployments.extract.to_deployment("secrets", entrypoint_type="module_path").apply()

    async def ask(**parameters):
        async with get_client() as client:
            await client.create_flow_run_from_deployment(identity, parameters=parameters)

    for parameters in ({"data": url, "store": store}, {"data": "/data", "store": url}):
        with pytest.raises(PrefectHTTPStatusError, match="409"):
            asyncio.run(ask(**parameters))
