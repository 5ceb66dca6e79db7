"""Runs that are recorded on a real Prefect server: what it is told, and how they are deployed to it."""

import asyncio

import pytest
import yaml

from data_contracts.errors import InputError
from data_contracts.store.store import Store
from tests.faults.interruption_matrix import data_bytes
from tests.flows.conftest import run_command
from tests.video_factory import VideoSpec, write_video

pytestmark = pytest.mark.usefixtures("prefect_server")
STAGES = ["index_videos", "crop_faces", "assign_subjects", "embed_faces"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    write_video(folder / "clip.mp4", VideoSpec(frame_count=4))
    return folder


@pytest.fixture(scope="module")
def plain_store(data, tmp_path_factory, dask_address):
    from flows.extract import extract

    store = tmp_path_factory.mktemp("plain") / "store"
    extract(data, str(store), dask_address=dask_address)
    return store


def recorded():
    """(flow run, state, its task runs in order) of all flow runs, the last one first."""
    from prefect import get_client
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort, TaskRunSort

    async def ask():
        async with get_client() as client:
            found = []
            for run in await client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC):
                tasks = await client.read_task_runs(
                    flow_run_filter=FlowRunFilter(id={"any_": [run.id]}), sort=TaskRunSort.EXPECTED_START_TIME_ASC
                )
                found.append((run.name, run.state_name, [(task.name, task.state_name) for task in tasks]))
            return found

    return asyncio.run(ask())


def test_the_command_records_its_run_if_a_server_is_named(data, plain_store, tmp_path):
    from prefect.settings import PREFECT_API_URL

    store = tmp_path / "store"
    finished = run_command(
        "extract", data, "--store", store, "--workers", "1", environment={"PREFECT_API_URL": PREFECT_API_URL.value()}
    )
    assert finished.returncode == 0, finished.stderr
    assert data_bytes(store) == data_bytes(plain_store)
    name, state, tasks = recorded()[0]
    assert (name, state) == (f"extract {data.parent.name}/{data.name} with emotion_lite0", "Completed")
    assert tasks == [(stage, "Completed") for stage in STAGES]


def test_a_flow_takes_the_parameters_of_the_plain_function_and_checks_them(data, tmp_path, dask_address):
    from pydantic import ValidationError

    from flows import deployments

    extract = deployments.extract
    assert {"data", "store", "limit", "dask_address"} <= set(extract.parameters.properties)
    assert extract.parameters.required == ["data", "store"]
    with pytest.raises(ValidationError, match="greater than or equal to 20"):
        extract(data, str(tmp_path / "store"), min_face_px=3)
    with pytest.raises(InputError, match="nowhere: expected"):
        extract(tmp_path / "nowhere", str(tmp_path / "store"))
    assert recorded()[0][:2] == (f"extract {tmp_path.name}/nowhere with emotion_lite0", "Failed")
    extracted = extract(data=str(data), store=str(tmp_path / "store"), dask_address=dask_address)
    assert extracted.videos == ("clip",) and len(Store(tmp_path / "store").manifests("features")) == 1


def test_every_deployment_is_registered_under_its_name():
    from prefect.client.orchestration import get_client
    from prefect.flows import load_flow_from_entrypoint

    with open("prefect.yaml") as file:
        deployments = yaml.safe_load(file)["deployments"]
    for deployment in deployments:
        flow = load_flow_from_entrypoint(deployment["entrypoint"])
        flow.to_deployment(deployment["name"], entrypoint_type="module_path").apply()
    with get_client(sync_client=True) as client:
        for name in ("extract", "fit", "score", "submit", "pretrain"):
            found = client.read_deployment_by_name(f"{name}/affwild2")
            assert found.parameter_openapi_schema["required"]


def test_no_server_where_one_is_named_is_one_line(data, tmp_path):
    named = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}
    finished = run_command("extract", data, "--store", tmp_path / "store", environment=named)
    (line,) = finished.stderr.strip().splitlines()
    assert finished.returncode == 2 and "expected a Prefect server at http://127.0.0.1:9/api, got no answer" in line
