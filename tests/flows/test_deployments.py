"""Runs recorded on a Prefect server with a worker, which the documented commands start and use."""

import base64
import contextlib
import hashlib
import logging
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import LocalCluster

from data_contracts.challenge.editions import ABAW3_TEST_LISTS
from data_contracts.errors import InputError
from data_contracts.store.lock import lock_store
from data_contracts.store.store import Store
from flows.engine.run_results import SomeFailedError
from tests.faults.interruption_matrix import read_results
from tests.processes import run_command
from tests.tasks.pages.test_write_report import read_page
from tests.video_factory import VideoSpec, write_video

pytestmark = [pytest.mark.service, pytest.mark.usefixtures("prefect_server")]
STAGES = ["index_videos", "crop_faces", "assign_subjects", "embed_faces"]


@pytest.fixture(scope="module")
def lab(prefect_service, folder):
    with prefect_service.deployed(folder):
        yield prefect_service


@pytest.fixture(scope="module")
def plain_bytes(folder, dask_address):
    """Content of a store that a run without any server wrote."""
    from flows.extract import extract

    extract(folder / "videos", str(folder / "plain"), dask_address=dask_address)
    return read_results(folder / "plain")


@dataclass(frozen=True)
class LastRun:
    """The latest flow run that has ended, as the server recorded it."""

    name: str
    state: str
    stages: list[tuple[str, str]]
    artifacts: dict[str, Any]


def last_run():
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort, TaskRunSort

    ended = FlowRunFilter(state={"type": {"any_": ["COMPLETED", "FAILED"]}})
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(flow_run_filter=ended, sort=FlowRunSort.START_TIME_DESC, limit=1)
        this = FlowRunFilter(id={"any_": [run.id]})
        tasks = client.read_task_runs(flow_run_filter=this, sort=TaskRunSort.EXPECTED_START_TIME_ASC)
        found = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id={"any_": [run.id]}))
    artifacts = {artifact.key: artifact for artifact in found if artifact.key}
    return LastRun(run.name, run.state_name, [(task.name, task.state_name) for task in tasks], artifacts)


def test_a_deployment_runs_with_its_defaults(lab, folder, plain_bytes):
    run = lab.run_deployment("extract/affwild2")
    state = lab.end_of(run)["state"]
    assert (state["name"], state["message"]) == ("Completed", "1 extracted")
    assert read_results(folder / "store") == plain_bytes
    assert lab.stages_of(run) == [(name, "Completed", "0 ready, 1 done, 0 failed") for name in STAGES]
    log = lab.worker_log()
    assert "Traceback" not in log and "ERROR" not in log
    assert log.count("embed_faces") == 2, "the run's log reports each stage"


def test_a_form_refuses_unknown_and_wrong_parameters(lab):
    refused = lab.prefect("deployment", "run", "extract/affwild2", "--param", "minimal_face=3")
    assert refused.returncode == 1 and "minimal_face" in refused.stdout + refused.stderr
    assert "'typo' is not one of" in lab.refusal_of("fit/affwild2", task="expr", annotations="x", kind="typo")
    assert "'typo' does not match '^(paper|" in lab.refusal_of(
        "fit/affwild2", task="expr", annotations="x", recipe="typo"
    )
    assert "3 is less than the minimum of 20" in lab.refusal_of("extract/affwild2", min_face_px=3)
    assert "'settle_secods' was unexpected" in lab.refusal_of("rescore/affwild2", settle_secods=3)
    assert "'host' does not match '^(tcp|tls)://'" in lab.refusal_of("extract/affwild2", dask_address="host")


def test_server_worker_and_run_connect_to_this_machine_only(lab):
    assert "127.0.0.1" in lab.connections()
    assert lab.connections() <= {"127.0.0.1", "localhost", "::1", "None", "file"}


def test_the_command_records_its_run_on_a_named_server(prefect_server, folder, plain_bytes, tmp_path):
    arguments = ("extract", folder / "videos", "--store", tmp_path / "store", "--workers", "1")
    finished = run_command(*arguments, environment={"PREFECT_API_URL": prefect_server.url})
    assert finished.returncode == 0, finished.stderr
    assert read_results(tmp_path / "store") == plain_bytes
    run = last_run()
    assert (run.name, run.state) == (f"extract {folder.name}/videos with emotion_lite0", "Completed")
    assert run.stages == [(stage, "Completed") for stage in STAGES]


def test_an_unreachable_server_is_reported_in_one_line(folder, tmp_path):
    named = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}
    finished = run_command("extract", folder / "videos", "--store", tmp_path / "store", "--quiet", environment=named)
    (line,) = finished.stderr.strip().splitlines()
    assert finished.returncode == 2 and "expected a Prefect server at http://127.0.0.1:9/api, got no answer" in line


def test_a_flow_checks_its_parameters(folder, tmp_path, dask_address):
    from pydantic import ValidationError

    from flows import deployments

    extract, data = deployments.extract, folder / "videos"
    assert {"data", "store", "limit", "dask_address"} <= set(extract.parameters.properties)
    assert extract.parameters.required == ["data", "store"]
    with pytest.raises(ValidationError, match="greater than or equal to 20"):
        extract(data, str(tmp_path / "store"), min_face_px=3)
    with pytest.raises(InputError, match="nowhere: expected"):
        extract(tmp_path / "nowhere", str(tmp_path / "store"))
    refused = last_run()
    assert (refused.name, refused.state) == (f"extract {tmp_path.name}/nowhere with emotion_lite0", "Failed")
    description = refused.artifacts["extract-stages"].description
    assert description.startswith("Failed: /") and "/nowhere: expected a folder with videos" in description
    extracted = extract(data=str(data), store=str(tmp_path / "store"), dask_address=dask_address)
    assert extracted.videos == ("clip",) and len(Store(tmp_path / "store").manifests("features")) == 1


def test_a_submission_leaves_its_checks_and_a_report(demo, store_copy, dask_address):
    from flows import deployments

    wanted = demo.data / "names_of_videos_in_each_test_set" / ABAW3_TEST_LISTS["va"]
    zip_path = deployments.submit("va", str(store_copy), wanted, dask_address=dask_address)
    found = last_run().artifacts
    assert set(found) == {"submit-stages", "submit-report", "submission-abaw3-va"}

    assert found["submit-stages"].description == "Completed: 18 up to date"
    table = found["submit-stages"].data
    assert "\n| stage | units | ready | done | failed | quarantined | rows | seconds |\n| --- | ---: |" in table
    assert "\n| predict\\_outputs va | 17 | 17 | 0 | 0 | 0 |" in table
    assert "\n| write\\_submission | 1 | 1 | 0 | 0 | 0 |" in table

    text = found["submission-abaw3-va"].data
    assert f"`{zip_path}`" in text and hashlib.sha256(Path(zip_path).read_bytes()).hexdigest() in text
    assert "no fault (test list of 4 subjects, videos of 4 counted)" in text
    assert "| test03\\_left | 48 | 48 |" in text

    (page_path,) = store_copy.glob("reports/submit-*/index.html")
    assert f"({page_path.as_uri()})" in found["submit-report"].data
    _, page = read_page(Store(store_copy), str(page_path.relative_to(store_copy)))
    assert page.tables["Stages"][2][:4] == ["write_submission", "1", "1", "0"]
    assert ["task", "va"] in page.tables["Parameters"]


def test_a_failed_run_leaves_its_causes_and_ends_even_without_artifacts(tmp_path, dask_address, caplog):
    from flows import deployments

    data, store = tmp_path / "data", tmp_path / "store"
    data.mkdir()
    write_video(data / "clip.mp4", VideoSpec(frame_count=4))
    (data / "[x](javascript:1) <b>.mp4").write_bytes(b"not a video")
    with pytest.raises(SomeFailedError):
        deployments.extract(str(data), str(store), dask_address=dask_address)
    run = last_run()
    assert run.stages == [("index_videos", "Failed"), *((name, "Completed") for name in STAGES[1:])]
    found = run.artifacts
    assert set(found) == {"extract-stages", "extract-report"}
    assert found["extract-stages"].description == "Failed: 1 extracted, 1 failed"
    causes = found["extract-stages"].data
    assert "expected a readable video file" in causes
    assert "\\[x\\](javascript:1) &lt;b&gt;" in causes and "<b>" not in causes
    (page,) = store.glob("reports/extract-*/index.html")
    assert '<p class="outcome bad">Failed: 1 extracted, 1 failed</p>' in page.read_text()

    (store / "reports").rename(tmp_path / "away")
    (store / "reports").write_text("no folder")
    with caplog.at_level(logging.WARNING, "flows.artifacts"), pytest.raises(SomeFailedError):
        deployments.extract(str(data), str(store), dask_address=dask_address)
    assert [record.message for record in caplog.records if "artifacts of this run are not complete" in record.message]


def artifacts_of(service, run):
    """Return the description of each artifact of a run."""
    answer = service.ask("POST", "artifacts/filter", artifacts={"flow_run_id": {"any_": [run]}})
    return {one["key"]: one["description"] for one in answer}


def wait_for_artifact(service, run, key, text):
    deadline = time.monotonic() + 300
    while text not in artifacts_of(service, run).get(key, ""):
        assert time.monotonic() < deadline, artifacts_of(service, run)
        time.sleep(0.5)


def process_of(run):
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if run in process.environ().values() and "prefect.engine" in " ".join(process.cmdline()):
                return process
    raise AssertionError(f"no process of run {run}")


def test_runs_that_are_cancelled_or_killed_leave_their_artifacts(lab, folder):
    with LocalCluster(n_workers=0, dashboard_address=None) as cluster:
        # The first stage waits for a worker.
        runs = {}
        for store in ("cancelled", "killed"):
            # Runs that write to one folder of predictions would wait for each other.
            out = str(folder / f"out of {store}")
            places = {"videos": [str(folder / "videos")], "out": out, "store": str(folder / store)}
            runs[store] = lab.start_run("score/affwild2", **places, dask_address=cluster.scheduler_address)
        for run in runs.values():
            wait_for_artifact(lab, run, "score-stages", "last stage: index")
        process_of(runs["killed"]).send_signal(signal.SIGKILL)
        assert lab.prefect("flow-run", "cancel", runs["cancelled"]).returncode == 0
        assert lab.end_of(runs["killed"])["state"]["name"] == "Crashed"
        assert lab.end_of(runs["cancelled"])["state"]["name"] == "Cancelled"
    for store, start in (
        ("killed", "Not finished yet; if the run has ended since"),
        ("cancelled", "Cancelled (until then: "),
    ):
        found = artifacts_of(lab, runs[store])
        assert found["score-stages"].startswith(start)
        (page,) = (folder / store).glob("reports/score-*/index.html")
        assert str(page) in found["score-report"]
        _, shown = read_page(Store(folder / store), str(page.relative_to(folder / store)))
        assert [row[0] for row in shown.tables["Stages"]] == ["stage", "index_videos"]


def test_a_run_that_is_cancelled_while_it_waits_for_the_store_leaves_an_artifact(lab, folder):
    with lock_store(Store(folder / "in use"), on_wait=print):
        run = lab.start_run("score/affwild2", videos=[str(folder / "videos")], out="out", store=str(folder / "in use"))
        deadline = time.monotonic() + 300
        while "is using this store" not in lab.worker_log():
            assert time.monotonic() < deadline
            time.sleep(0.5)
        (line,) = [line for line in lab.worker_log().splitlines() if "is using this store" in line]
        assert "| WARNING |" in line
        assert lab.prefect("flow-run", "cancel", run).returncode == 0
        assert lab.end_of(run)["state"]["name"] == "Cancelled"
    assert artifacts_of(lab, run) == {"score-stages": "Cancelled before the first stage"}


def test_a_scored_video_leaves_a_summary_a_picture_and_a_link_that_opens(demo, tmp_path, dask_address, monkeypatch):
    from flows import deployments

    monkeypatch.setenv("AFFWILD2_SERVE_URL", "http://127.0.0.1:8420/")
    out = tmp_path / "out"
    deployments.score([str(demo.data / "videos" / "validation01.mp4")], str(out), dask_address=dask_address)
    found = last_run().artifacts
    assert set(found) == {"score-stages", "score-report", "score-summary"}
    (page,) = (out / "store").glob("reports/score-*/index.html")
    assert f"(http://127.0.0.1:8420/{page.relative_to(out / 'store')})" in found["score-report"].data
    picture, _, table = found["score-summary"].data.partition("\n\n")
    assert table.startswith("| video | person | frames |") and "\n| validation01 | 1 | 48 |" in table
    kind, _, data = picture.removesuffix(")").partition("base64,")
    assert kind == "![Share of each expression, per person](data:image/svg+xml;"
    assert b"validation01, 1</text>" in base64.b64decode(data)
