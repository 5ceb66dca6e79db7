import os

import pytest

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


def test_one_process_per_gpu_each_with_its_own():
    from distributed import Client

    with gpu_cluster(["0", "3"]) as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        resources = unit_resources(client)
        assert resources == {"GPU": 1}
        seen = client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
        assert sorted(seen.values()) == ["0", "3"]
        assert client.submit(sum, [1, 2], resources=resources).result(timeout=30) == 3
