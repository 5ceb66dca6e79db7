"""Order of the tests, and shared fixtures: portraits, a Dask cluster, a Prefect server, an S3 server. All are real."""

import gc
import os
from pathlib import Path

import tests.environment  # noqa: F401

# isort: split
import numpy as np
import pytest

from data_contracts.settings import read_settings
from tests.flaky_s3 import flaky_s3
from tests.s3_server import new_bucket, s3_environment, serving_s3, use_s3

TESTS = Path(__file__).parent
# The first file runs the demo. The other files before "flows" do not wait for it.
SLOWEST_FIRST = (
    "flows/test_demo.py",
    "flows/test_deployments.py",
    "flows/test_pretrain.py",
    "flows/test_s3.py",
    "flows/test_s3_faults.py",
    "flows/test_interruptions.py",
    "flows/test_rescore.py",
    "flows/test_extract.py",
    "flows",
    "models",
    "infra",
    "tasks",
)


def pytest_xdist_auto_num_workers():
    """Use one process more than cores: tests wait for servers, workers and commands a third of their time."""
    return min(4, len(os.sched_getaffinity(0)) + 1)


def pytest_configure():
    # While modules are imported, a search for garbage finds none. Until pytest_collection_finish.
    gc.disable()


def pytest_collection_modifyitems(items):
    """Sort slow files to the start, because a slow last file would leave all cores but one idle.

    The tests of a file stay together and keep their order.
    """
    places = [TESTS / name for name in SLOWEST_FIRST]

    def place(item):
        return next((n for n, path in enumerate(places) if item.path.is_relative_to(path)), len(places))

    items.sort(key=place)


def pytest_collection_finish():
    import torch

    # The test processes share the cores.
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // processes))
    # Imported objects stay: exclude them from garbage collection, which would take half a second each time.
    gc.freeze()
    gc.enable()


def pytest_unconfigure():
    # Some libraries warn at exit about objects that were not collected.
    gc.unfreeze()


@pytest.fixture(scope="session")
def portraits() -> list[np.ndarray]:
    from tasks.demo.scenes import load_portraits

    return load_portraits()


@pytest.fixture(scope="session")
def prefect_service(tmp_path_factory):
    """A Prefect server that stores its runs in SQLite."""
    from tests.prefect_service import serving_prefect

    with serving_prefect(tmp_path_factory.mktemp("prefect"), PREFECT_SERVER_METRICS_ENABLED="true") as service:
        yield service


@pytest.fixture(scope="module")
def prefect_server(prefect_service):
    """The same server, which also records the flows that the module's tests call in this process."""
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_service.url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield prefect_service


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium (tests.browser), for service tests. Fixtures that make its pages come before it."""
    from tests.browser import running_browser

    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def dask_address():
    """Address of a real scheduler with two worker processes that all tests share."""
    from infra.clusters import open_cluster

    with open_cluster(workers=2) as client:
        yield client.cluster.scheduler_address


@pytest.fixture(scope="session")
def s3_address():
    """Address of an S3 server, over HTTP, in this process."""
    with serving_s3() as address:
        yield address


@pytest.fixture
def s3_bucket(s3_address, monkeypatch, tmp_path_factory):
    """URL of an empty bucket on the S3 server. Environment variables name the server and a new cache folder."""
    cache, networks = tmp_path_factory.mktemp("cache"), read_settings().cache_folder / "networks"
    # All tests share the converted networks, which take seconds to make.
    networks.mkdir(parents=True, exist_ok=True)
    (cache / "networks").symlink_to(networks)
    monkeypatch.setenv("AFFWILD2_CACHE", str(cache))
    for name, value in s3_environment(s3_address).items():
        monkeypatch.setenv(name, value)
    return new_bucket()


@pytest.fixture
def flaky(s3_bucket, s3_address):
    """A proxy in front of the S3 server, which injects faults on request."""
    with flaky_s3(s3_address) as proxy:
        use_s3(proxy.address)
        yield proxy
        use_s3(s3_address)
