import os

import dask
import pytest
from distributed import LocalCluster
from distributed.security import Security

from infra import clusters
from infra.cluster_state import unit_resources
from infra.clusters import ClusterError, gpu_cluster, open_cluster


def test_by_address(dask_address):
    with open_cluster(address=dask_address) as client:
        assert client.submit(sum, [1, 2]).result(timeout=30) == 3
        assert unit_resources(client) == {}


def test_local_cluster_ends_with_the_block():
    with open_cluster(workers=1) as client:
        pid = client.submit(os.getpid).result(timeout=60)
        assert pid != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_wrong_address_is_one_line():
    message = r"expected a Dask scheduler at tcp://127\.0\.0\.1:9"
    with pytest.raises(ClusterError, match=message), open_cluster(address="tcp://127.0.0.1:9"):
        pass


def test_certificates_are_taken_from_dasks_settings(tmp_path):
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


def test_a_password_in_an_address_is_not_shown():
    with pytest.raises(ClusterError) as raised, open_cluster(address="tcp://me:secret@127.0.0.1:9"):
        pass
    assert "secret" not in str(raised.value) and "tcp://127.0.0.1:9" in str(raised.value)


def test_one_process_per_gpu_each_with_its_own():
    from distributed import Client

    with gpu_cluster(["0", "3"]) as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        resources = unit_resources(client)
        assert resources == {"GPU": 1}
        seen = client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
        assert sorted(seen.values()) == ["0", "3"]
        assert client.submit(sum, [1, 2], resources=resources).result(timeout=30) == 3


@pytest.mark.parametrize("memory", [1e9, 64e9])
def test_a_memory_limit_is_above_what_workers_need(memory, monkeypatch):
    """An equal share for one worker of many cores would be passed by one that maps the rows of a fit."""
    monkeypatch.setattr(clusters, "MEMORY_LIMIT", memory)
    assert clusters._memory_limit(1) == memory
    assert clusters._memory_limit(2) == clusters._memory_limit(64) == memory / 2
