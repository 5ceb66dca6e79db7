"""Shared parts of the tests: quiet environment, portraits, a Dask cluster, a Prefect server. All of it real."""

import atexit
import os
import shutil
import sys
import tempfile

# Compiled modules are kept whatever this shell says: each of some hundred processes would compile all of them anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
if "PYTEST_XDIST_WORKER" not in os.environ:
    # What commands leave that are killed goes with all the rest, when the tests end; tmp_path stays, to be looked at.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    _scratch = tempfile.mkdtemp(prefix="affwild2-tests-")
    # PostgreSQL runs as another user.
    os.chmod(_scratch, 0o711)
    atexit.register(shutil.rmtree, _scratch, ignore_errors=True)
    os.environ["TMPDIR"] = tempfile.tempdir = _scratch
os.environ |= {
    "PREFECT_HOME": tempfile.mkdtemp(prefix="prefect-"),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_METRICS_ENABLED": "true",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "DO_NOT_TRACK": "1",
    "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical",
    # Processes share the cores: one thread that waits for another would keep a third from working.
    "OMP_WAIT_POLICY": "PASSIVE",
    "OPENBLAS_THREAD_TIMEOUT": "4",
}

import numpy as np
import pytest
import torch

from tests.flaky_s3 import flaky_s3
from tests.s3_server import new_bucket, s3_environment, serving_s3, use_s3

# Processes of tests share the cores.
torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))


@pytest.fixture(scope="session")
def portraits() -> list[np.ndarray]:
    from tasks.generate_demo_data import load_portraits

    return load_portraits()


@pytest.fixture(scope="session")
def prefect_server():
    """A real Prefect server for the few tests of how runs are recorded on one."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield


@pytest.fixture(scope="session")
def dask_address():
    """Address of a real scheduler with two worker processes that all tests share."""
    from infra.clusters import open_cluster

    with open_cluster(workers=2) as client:
        yield client.cluster.scheduler_address


@pytest.fixture(scope="session")
def s3_address():
    """Address of a real server of S3, over HTTP, in this process."""
    with serving_s3() as address:
        yield address


@pytest.fixture
def s3_bucket(s3_address, monkeypatch, tmp_path_factory):
    """URL of an empty bucket there, with an environment that says where it is, and what is kept of it elsewhere."""
    monkeypatch.setenv("AFFWILD2_CACHE", str(tmp_path_factory.mktemp("cache")))
    for name, value in s3_environment(s3_address).items():
        monkeypatch.setenv(name, value)
    return new_bucket()


@pytest.fixture
def flaky(s3_bucket, s3_address):
    """The server of S3 behind a proxy that does it harm on request."""
    with flaky_s3(s3_address) as proxy:
        use_s3(proxy.address)
        yield proxy
        use_s3(s3_address)
