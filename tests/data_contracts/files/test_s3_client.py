import os
import subprocess
import sys
import threading

import pytest

from data_contracts import settings
from data_contracts.errors import InputError, StoreError
from data_contracts.files import s3_client
from data_contracts.files.locations import location
from data_contracts.files.s3_client import open_video_file
from data_contracts.settings import answering_soon, read_settings
from data_contracts.store.store import Store
from data_contracts.video.packets import index_video
from tests.flaky_s3 import (
    CUT_ANSWER,
    CUT_BEFORE,
    CUT_BODY,
    CUT_UPLOAD,
    ERROR_500,
    HELD_UPLOAD,
    SILENCE,
    SLOW_DOWN,
    TRICKLE,
    Fault,
)
from tests.video_factory import VideoSpec, write_video

OLD, NEW = b"old" * 30_000, b"new" * 40_000


@pytest.fixture
def store(flaky, s3_bucket):
    store = Store(f"{s3_bucket}/store")
    store.write_bytes("a/old", OLD)
    return store


def test_transient_faults_are_retried_with_growing_waits(flaky, store):
    for kind in (ERROR_500, SLOW_DOWN, CUT_BEFORE, CUT_ANSWER, CUT_BODY, TRICKLE):
        flaky.spoil(Fault(kind, "GET", "a/old", times=3))
        assert store.read_bytes("a/old") == OLD
        (waits,) = flaky.waits()
        # A cut connection that was in use before is reopened at once. On a busy machine, waits are longer.
        least = {TRICKLE: 0, CUT_BEFORE: 1, CUT_ANSWER: 1}.get(kind, 3)
        assert len(waits) >= least and sum(waits) >= sum(0.07 * 1.7**number for number in range(least))
    for kind in (ERROR_500, SLOW_DOWN, CUT_BEFORE, CUT_ANSWER, CUT_UPLOAD):
        flaky.spoil(Fault(kind, "PUT", "a/new", times=3))
        store.write_bytes("a/new", NEW)
        assert store.read_bytes("a/new") == NEW and {r.spoiled for r in flaky.log} == {kind, None}
        store.remove("a/new")


@pytest.mark.parametrize("kind", [ERROR_500, CUT_BEFORE])
def test_parallel_reads_survive_an_outage(kind, flaky, store):
    """Botocore's mode "standard" fails here, because it limits the retries of a client to a hundred at once."""
    names = [f"a/{number}" for number in range(50)]
    for name in names:
        store.write_bytes(name, name.encode())
    flaky.spoil(Fault(kind, "GET", times=150))
    assert store.files.read_many(names) == [name.encode() for name in names]


def test_a_write_is_seen_whole_or_not_at_all(flaky, store):
    flaky.spoil(Fault(HELD_UPLOAD, "PUT"))
    for name, before in (("a/old", OLD), ("a/new", None)):
        flaky.half_sent.clear()
        flaky.go_on.clear()
        writer = threading.Thread(target=store.write_bytes, args=(name, NEW))
        writer.start()
        assert flaky.half_sent.wait(120)
        assert store.exists(name) == (before is not None) and set(store.files_below("a")) <= {"a/old", name}
        if before:
            assert store.read_bytes(name) == before
        flaky.go_on.set()
        writer.join()
        assert store.read_bytes(name) == NEW


def test_an_upload_that_is_always_cut_writes_nothing_and_is_one_line(flaky, store, monkeypatch):
    monkeypatch.setenv("AFFWILD2_PATIENCE_SECONDS", "1")
    flaky.spoil(Fault(CUT_UPLOAD, "PUT"))
    for name in ("a/new", "a/old"):
        with pytest.raises(StoreError, match=rf"expected a store that can be written at .*{name}, got: \d+ tries") as e:
            store.write_bytes(name, NEW)
        assert "\n" not in str(e.value) and flaky.address in str(e.value)
    assert sum(request.method == "PUT" for request in flaky.log) > 6
    assert list(store.files_below("a")) == ["a/old"] and store.read_bytes("a/old") == OLD


@pytest.mark.parametrize("kind", [SILENCE, CUT_BODY, ERROR_500])
def test_reads_end_at_the_timeout_if_the_server_is_down(kind, flaky, s3_bucket, monkeypatch):
    store, names = Store(f"{s3_bucket}/store"), [f"a/{number}" for number in range(50)]
    for name in names:
        store.write_bytes(name, b"12")
    monkeypatch.setattr(s3_client, "_READ_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setenv("AFFWILD2_PATIENCE_SECONDS", "0.5")
    flaky.spoil(Fault(kind, "GET", "/a/"))
    store = Store(f"{s3_bucket}/store")
    for read in (lambda: store.files.read_many(names), lambda: store.read_bytes("a/1")):
        with pytest.raises(StoreError, match=r"got: .*check AWS_ENDPOINT_URL_S3 .*run again") as caught:
            read()
        assert "\n" not in str(caught.value)
    # Only the requests that run in parallel fail; the other files are not requested.
    assert len({request.path for request in flaky.log}) <= 32


@pytest.mark.parametrize("kind", [SILENCE, SLOW_DOWN, CUT_BEFORE])
def test_a_command_that_answers_soon_asks_a_server_that_is_down_only_once(kind, flaky, s3_bucket, monkeypatch):
    monkeypatch.setattr(settings, "_SOON_SECONDS", 0.5)
    monkeypatch.setattr(s3_client, "_SHORT_READ_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(s3_client, "_unanswered", [])
    Store(f"{s3_bucket}/store").write_bytes("a/1", b"12")
    flaky.spoil(Fault(kind))
    with answering_soon():
        # The setting of two minutes is for runs.
        assert read_settings().s3_timeout_seconds == 0.5
        with pytest.raises(StoreError, match=r"tries in \d+ s, last: .*check AWS_ENDPOINT_URL_S3"):
            Store(f"{s3_bucket}/store").list_folder("")
        requests = len(flaky.log)
        with pytest.raises(StoreError, match="tries in"):
            Store(f"{s3_bucket}/other").read_bytes("a/1")
        assert len(flaky.log) == requests
    flaky.spoil()
    assert read_settings().s3_timeout_seconds > 1 and Store(f"{s3_bucket}/store").read_bytes("a/1") == b"12"


def test_a_dns_server_that_is_silent_does_not_delay_the_end_of_a_command():
    """The last look-up of an address still runs when the command ends; here it would take an hour."""
    script = """
import socket, time
from data_contracts import settings
from data_contracts.files import s3_client
from flows.commands.command_line import main

socket.getaddrinfo = lambda *arguments, **options: time.sleep(3600)
settings._SOON_SECONDS, s3_client._SHORT_READ_TIMEOUT_SECONDS = 1.0, 0.2
main()
"""
    environment = {
        "AWS_ENDPOINT_URL_S3": "http://store.example:9000",
        "AWS_ACCESS_KEY_ID": "key-of-a-test",
        "AWS_SECRET_ACCESS_KEY": "secret-of-a-test",
        "AWS_REGION": "us-east-1",
    }
    command = [sys.executable, "-c", script, "status", "--store", "s3://bucket/store"]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2 and "last: no answer; check AWS_ENDPOINT_URL_S3" in done.stderr
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1


@pytest.fixture
def video(s3_bucket, tmp_path, monkeypatch):
    """A video of many blocks on S3."""
    monkeypatch.setattr(s3_client, "_BLOCK_BYTES", 1 << 11)
    place = location(f"{s3_bucket}/video.mp4")
    place.write_bytes(write_video(tmp_path / "video.mp4", VideoSpec(60, width_px=320, height_px=240)).read_bytes())
    return place


def test_a_video_is_read_in_blocks_that_later_openings_reuse(flaky, video):
    content = video.read_bytes()
    flaky.spoil()
    file = open_video_file(video)
    file.seek(3000)
    assert file.read(100) == content[3000:3100] and file.tell() == 3100
    assert [request.method for request in flaky.log if "video.mp4" in request.path].count("GET") == 1
    again = open_video_file(video)
    assert again is file and again.tell() == 0
    again.seek(-100, os.SEEK_END)
    assert again.read() == content[-100:] and again.read(10) == b""
    again.seek(3000)
    assert again.read(100) == content[3000:3100]
    assert [request.method for request in flaky.log if "video.mp4" in request.path].count("GET") == 2


def test_a_video_that_is_replaced_while_it_is_read_is_refused(video):
    file, content = open_video_file(video), video.read_bytes()
    file.read(100)
    type(video.fs)(skip_instance_cache=True, **video.storage_options).pipe_file(video.path, content[::-1])
    file.seek(3000)
    for read in (lambda: file.read(100), file.raise_if_failed):
        with pytest.raises(InputError, match="expected an unchanged file, got: it was changed"):
            read()
    assert open_video_file(video).read(100) == content[::-1][:100]


def test_a_failed_request_is_the_cause_whatever_ffmpeg_reports(flaky, video, monkeypatch):
    open_video_file(video).read(100)
    monkeypatch.setenv("AFFWILD2_PATIENCE_SECONDS", "0.5")
    flaky.spoil(Fault(ERROR_500, "GET"))
    with pytest.raises(OSError, match=r"tries in .* last: .*internal error"):
        index_video(video)
    flaky.spoil()
    assert index_video(video).frame_count == 60
