"""Shared parts of the tests: quiet environment, portraits, a Dask cluster, a Prefect server. All of it real."""

import os
import tempfile

os.environ |= {
    "PREFECT_HOME": tempfile.mkdtemp(prefix="affwild2-prefect-"),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "DO_NOT_TRACK": "1",
    "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical",
}

import numpy as np
import pytest
import torch

torch.set_num_threads(2)


@pytest.fixture(scope="session")
def portraits() -> list[np.ndarray]:
    from tasks.generate_demo_data import load_portraits

    return load_portraits()


@pytest.fixture(scope="session")
def prefect_server():
    """A real Prefect server for all tests that run flows."""
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
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", memory_limit=0
    ) as cluster:
        yield cluster.scheduler_address
