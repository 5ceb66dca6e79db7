import os

import dask
import httpx
import pytest
from distributed import Client, LocalCluster
from distributed.security import Security

from infra import clusters
from infra.cluster_state import unit_resources
from infra.clusters import ClusterError, GpuCluster, add_workers, open_cluster
from infra.machine import Gpu


def test_existing_cluster_by_address(dask_address):
    with open_cluster(address=dask_address) as client:
        assert client.submit(sum, [1, 2]).result(timeout=30) == 3
        assert unit_resources(client) == {}


def test_a_local_cluster_ends_with_the_block():
    with open_cluster(workers=1) as client:
        pid = client.submit(os.getpid).result(timeout=60)
        assert pid != os.getpid()
        # No run waits for the import of bokeh and for pages that nobody opens.
        page = f"http://127.0.0.1:{client.scheduler_info()['services']['dashboard']}"
        assert (httpx.get(f"{page}/health").status_code, httpx.get(f"{page}/status").status_code) == (200, 404)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_wrong_address_is_one_line():
    message = r"expected a Dask scheduler at tcp://127\.0\.0\.1:9"
    with pytest.raises(ClusterError, match=message), open_cluster(address="tcp://127.0.0.1:9"):
        pass


def test_settings_of_dask_name_the_certificates(tmp_path):
    made = Security.temporary()
    files = {"ca-file": made.tls_ca_file, "key": made.tls_client_key, "cert": made.tls_client_cert}
    for name, content in files.items():
        (tmp_path / f"{name}.pem").write_text(content)
    tls = {
        f"distributed.comm.tls.{place}": str(tmp_path / f"{name}.pem")
        for place, name in (("ca-file", "ca-file"), ("client.key", "key"), ("client.cert", "cert"))
    }
    options = {"processes": False, "n_workers": 1, "protocol": "tls://", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(security=made, **options) as cluster:
        with dask.config.set(tls), open_cluster(address=cluster.scheduler_address) as client:
            assert client.submit(sum, [1, 2]).result(timeout=30) == 3
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
        assert client.submit(sum, [1, 2], resources=unit_resources(client)).result(timeout=30) == 3


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
