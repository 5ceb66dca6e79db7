import contextlib
import os
import signal
import socket
import threading
import time
from http.server import HTTPServer, SimpleHTTPRequestHandler

import dask
import httpx
import pytest
from distributed import Client, LocalCluster, get_worker
from distributed.security import Security

from infra import clusters
from infra.cluster_state import unit_resources
from infra.clusters import ClusterError, GpuCluster, add_workers, open_cluster
from infra.machine import Gpu
from tests.benchmarks.generated_store import make_videos
from tests.faults.dask_cluster import dask_cluster
from tests.processes import run_command


def test_existing_cluster_by_address(dask_address):
    with open_cluster(address=dask_address) as client:
        assert client.submit(sum, [1, 2]).result(timeout=120) == 3
        assert unit_resources(client) == {}


def periodic_work():
    return list(get_worker().periodic_callbacks)


def test_a_local_cluster_ends_with_the_block():
    with open_cluster(workers=1) as client:
        pid = client.submit(os.getpid).result(timeout=60)
        assert pid != os.getpid()
        # Dask's profiler would compete with the work.
        assert "tick" in client.submit(periodic_work).result(timeout=60)
        assert "profile" not in client.submit(periodic_work).result(timeout=60)
        # No run waits for the imports of pages and metrics that nobody opens.
        page = f"http://127.0.0.1:{client.scheduler_info()['services']['dashboard']}"
        assert {httpx.get(f"{page}/{name}").status_code for name in ("health", "metrics", "status")} == {404}
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@contextlib.contextmanager
def serving(answer):
    """Serve a port that is not Dask's: ``answer`` gets each connection. Yield its number."""
    kept = []

    def accept():
        with contextlib.suppress(OSError):
            while True:
                kept.append(listener.accept()[0])
                answer(kept[-1])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    for connection in kept:
        connection.close()


@contextlib.contextmanager
def serving_http():
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@contextlib.contextmanager
def serving_dashboard():
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster:
        yield cluster.scheduler.http_server.port


OTHER_SERVICES = {
    "silent": (lambda: serving(lambda connection: None), "no answer for 1 s"),
    "closes at once": (lambda: serving(socket.socket.close), "no answer"),
    "closes after some bytes": (
        lambda: serving(lambda connection: (connection.sendall(b"\x10\0\0\0\0\0\0\0abc"), connection.close())),
        "no answer",
    ),
    "ssh": (
        lambda: serving(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")),
        "an answer in another protocol",
    ),
    "text": (lambda: serving(lambda connection: connection.sendall(b"\xff" * 64)), "an answer in another protocol"),
    "empty message": (
        lambda: serving(lambda connection: connection.sendall(bytes(16))),
        "an answer in another protocol",
    ),
    "http": (serving_http, "no answer for 1 s"),
    "dashboard": (serving_dashboard, "no answer for 1 s"),
}


def test_a_worker_that_does_not_end_does_not_hide_the_reason_of_the_end(monkeypatch, caplog):
    close = LocalCluster.close

    def close_too_slowly(cluster, *args, **kwargs):
        close(cluster, *args, **kwargs)
        raise TimeoutError

    monkeypatch.setattr(LocalCluster, "close", close_too_slowly)
    with pytest.raises(KeyboardInterrupt), open_cluster(workers=1, units=1) as client:
        (process,) = client.run(os.getpid).values()
        os.kill(process, signal.SIGSTOP)
        raise KeyboardInterrupt
    assert "a local worker hangs" in caplog.text


@pytest.fixture
def short_timeout(monkeypatch):
    """Dask retries a connection that is refused until this timeout."""
    monkeypatch.setattr(clusters, "_CONNECT_TIMEOUT", "500ms")


@pytest.mark.parametrize("service", OTHER_SERVICES)
def test_a_service_that_is_no_scheduler_is_reported(service, monkeypatch):
    serve, cause = OTHER_SERVICES[service]
    if cause == "no answer for 1 s":
        # Other services answer at once, but later on a busy machine.
        monkeypatch.setattr(clusters, "_ANSWER_SECONDS", 1)
    with serve() as port:
        address = f"tcp://127.0.0.1:{port}"
        with pytest.raises(ClusterError) as raised, open_cluster(address=address):
            pass
        message = str(raised.value)
        assert message.startswith(f"expected a Dask scheduler at {address}, got ") and "\n" not in message
        assert cause in message and "check the address" in message


@pytest.mark.parametrize(
    ("address", "cause"),
    [
        # A busy machine may not even refuse a connection in time.
        ("tcp://127.0.0.1:9", "at tcp://127.0.0.1:9, got no answer: .*(refused|Timed out)"),
        ("tcp://no-such-host.invalid:8786", "at tcp://no-such-host.invalid:8786, got no answer"),
        ("http://127.0.0.1:8787/status", "as tcp://HOST:8786, got http://127.0.0.1:8787/status: unknown .*'http'"),
        ("127.0.0.1", "as tcp://HOST:8786, got 127.0.0.1: missing port"),
        ("tcp://127.0.0.1:port", "as tcp://HOST:8786, got tcp://127.0.0.1:port: invalid literal"),
    ],
)
def test_a_wrong_address_is_one_line(address, cause, short_timeout):
    with pytest.raises(ClusterError, match=f"^expected a Dask scheduler {cause}"), open_cluster(address=address):
        pass


def test_a_worker_is_not_taken_for_its_scheduler(dask_address):
    with Client(dask_address) as client:
        worker = next(iter(client.scheduler_info()["workers"]))
    with pytest.raises(ClusterError, match="got a Worker; pass the address"), open_cluster(address=worker):
        pass


@pytest.fixture
def certificates():
    return Security.temporary()


@pytest.fixture
def tls_settings(certificates, tmp_path):
    """Dask's settings for ``certificates``, which name files."""
    names = {"ca-file": "tls_ca_file", "client.key": "tls_client_key", "client.cert": "tls_client_cert"}
    for name, attribute in names.items():
        (tmp_path / name).write_text(getattr(certificates, attribute))
    return {f"distributed.comm.tls.{name}": str(tmp_path / name) for name in names}


def test_a_scheduler_with_another_protocol_is_reported(certificates, tls_settings, short_timeout):
    options = {"processes": False, "n_workers": 0, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(security=certificates, protocol="tls://", **options) as cluster:
        address = cluster.scheduler_address.replace("tls", "tcp")
        with pytest.raises(ClusterError, match=f"^expected a Dask scheduler at {address}, got no answer"):
            open_cluster(address=address).__enter__()
    with LocalCluster(protocol="tcp://", **options) as cluster, dask.config.set(tls_settings):
        address = cluster.scheduler_address.replace("tcp", "tls")
        with pytest.raises(ClusterError, match=f"^expected a Dask scheduler at {address}, got (no|an) answer"):
            open_cluster(address=address).__enter__()


def test_a_run_waits_for_the_first_worker(monkeypatch):
    options = {"n_workers": 0, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**options) as cluster:
        monkeypatch.setenv("AFFWILD2_PATIENCE_SECONDS", "1")
        message = f"expected workers at {cluster.scheduler_address}, found none for 1 s; start dask worker"
        with pytest.raises(ClusterError, match=message), open_cluster(address=cluster.scheduler_address):
            pass
        monkeypatch.setenv("AFFWILD2_PATIENCE_SECONDS", "60")
        messages = []

        def note(message):
            messages.append(message)
            cluster.scale(1)

        with open_cluster(address=cluster.scheduler_address, on_wait=note) as client:
            assert client.submit(sum, [1, 2]).result(timeout=120) == 3
        (line,) = messages
        assert line.startswith(f"no worker at {cluster.scheduler_address} yet; waiting up to 60 s; start dask worker")


@pytest.mark.service
def test_the_command_reports_an_address_that_is_no_scheduler_within_half_a_minute(tmp_path):
    """The port of the dashboard, and a scheduler whose process is stopped."""
    make_videos(tmp_path / "videos", 1)
    with dask_cluster(tmp_path / "logs") as cluster, serving_dashboard() as dashboard:
        Client(cluster.address, timeout="60s").close()
        os.kill(cluster.scheduler.pid, signal.SIGSTOP)
        try:
            for address in (f"tcp://127.0.0.1:{dashboard}", cluster.address):
                started = time.monotonic()
                finished = run_command(
                    "extract", tmp_path / "videos", "--store", tmp_path / "store", "--dask-address", address
                )
                line, *progress = reversed(finished.stderr.strip().splitlines())
                assert all(" is working, " in text for text in progress), progress
                assert finished.returncode == 2 and time.monotonic() - started < 60
                assert line.startswith(f"affwild2: expected a Dask scheduler at {address}, got a connection but no")
        finally:
            os.kill(cluster.scheduler.pid, signal.SIGCONT)


def test_settings_of_dask_name_the_certificates(certificates, tls_settings):
    options = {"processes": False, "n_workers": 1, "protocol": "tls://", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(security=certificates, **options) as cluster:
        with dask.config.set(tls_settings), open_cluster(address=cluster.scheduler_address) as client:
            assert client.submit(sum, [1, 2]).result(timeout=120) == 3
        refused = pytest.raises(ClusterError, match="expected a Dask scheduler at tls://")
        with refused, open_cluster(address=cluster.scheduler_address):
            pass


def test_messages_hide_the_password_of_an_address():
    with pytest.raises(ClusterError) as raised, open_cluster(address="tcp://me:secret@127.0.0.1:9"):
        pass
    assert "secret" not in str(raised.value) and "tcp://127.0.0.1:9" in str(raised.value)


def test_workers_are_distributed_over_gpus_and_each_sees_one():
    with GpuCluster([Gpu("0"), Gpu("3")], count=1, most=3) as cluster, Client(cluster) as client:
        client.wait_for_workers(1, timeout=60)
        assert unit_resources(client) == {"GPU": 1}
        add_workers(client, workers=None, units=50)
        client.wait_for_workers(3, timeout=60)
        seen = client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
        assert sorted(seen.values()) == ["0", "0", "3"]
        assert client.submit(sum, [1, 2], resources=unit_resources(client)).result(timeout=120) == 3


@pytest.mark.parametrize(
    ("cores", "memory_gb", "most"),
    [(16, 80.0, 8), (4, 80.0, 4), (64, 16.0, 2), (2, 4.0, 1), (16, None, 1)],
)
def test_memory_and_cores_limit_the_workers_per_gpu(cores, memory_gb, most, monkeypatch):
    monkeypatch.setattr(clusters, "usable_cores", lambda: cores)
    assert clusters._most_workers(None, [Gpu("0", memory_gb)]) == most
    assert clusters._most_workers(3, [Gpu("0", memory_gb)]) == 3
    monkeypatch.setattr(clusters, "usable_cores", lambda: 2 * cores)
    assert clusters._most_workers(None, [Gpu("0", memory_gb), Gpu("1", memory_gb)]) == 2 * most


@pytest.mark.parametrize("memory", [1e9, 64e9])
def test_memory_limit_of_workers(memory, monkeypatch):
    """An equal share per worker would be too little for a worker that maps the rows of a fit."""
    monkeypatch.setattr(clusters, "MEMORY_LIMIT", memory)
    assert clusters._memory_limit(1) == memory
    assert clusters._memory_limit(2) == clusters._memory_limit(64) == memory / 2
