"""What recorded runs leave on a real Prefect server."""

import hashlib
import json
import logging
from pathlib import Path

import pytest

from data_contracts.challenge.editions import ABAW3_TEST_LISTS
from data_contracts.store.store import Store
from flows.engine.run import SomeFailedError
from tests.tasks.results.test_write_report import read_page
from tests.video_factory import VideoSpec, write_video

pytestmark = pytest.mark.usefixtures("prefect_server")


def artifacts_of_last_run():
    """(artifacts of the last flow run by key, its name)."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        run = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]
        chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        found = client.read_artifacts(artifact_filter=chosen)
        return {artifact.key: artifact for artifact in found if artifact.key}, run.name


def test_a_submission_its_checks_and_the_report_of_the_run(demo, store_copy, dask_address):
    from flows import deployments

    wanted = demo.data / "names_of_videos_in_each_test_set" / ABAW3_TEST_LISTS["va"]
    zip_path = deployments.submit("va", str(store_copy), wanted, dask_address=dask_address)
    found, name = artifacts_of_last_run()
    assert set(found) == {"submit-stages", "submit-report", "submission-abaw3-va"}

    predict, write = json.loads(found["submit-stages"].data)
    assert (predict["stage"], predict["units"], predict["ready"]) == ("predict_outputs va", 17, 17)
    assert (write["stage"], write["ready"], write["done"], write["failed"]) == ("write_submission", 1, 0, 0)
    assert found["submit-stages"].description.startswith("all done, ")

    text = found["submission-abaw3-va"].data
    assert f"`{zip_path}`" in text and hashlib.sha256(Path(zip_path).read_bytes()).hexdigest() in text
    assert "no fault (test list of 4 subjects, videos of 4 counted)" in text
    assert "| test03\\_left | 48 | 48 |" in text

    (page_path,) = store_copy.glob("reports/submit-*/index.html")
    assert f"({page_path.as_uri()})" in found["submit-report"].data
    _, page = read_page(Store(store_copy), str(page_path.relative_to(store_copy)))
    assert page.tables["Stages"][2][:4] == ["write_submission", "1", "1", "0"]
    assert ["task", "va"] in page.tables["Parameters"] and name


def test_a_run_that_failed_tells_why_and_one_that_cannot_tell_ends_as_it_would(tmp_path, dask_address, caplog):
    from flows import deployments

    data, store = tmp_path / "data", tmp_path / "store"
    data.mkdir()
    write_video(data / "clip.mp4", VideoSpec(frame_count=4))
    (data / "[x](javascript:1) <b>.mp4").write_bytes(b"not a video")
    with pytest.raises(SomeFailedError):
        deployments.extract(str(data), str(store), dask_address=dask_address)
    found, _ = artifacts_of_last_run()
    assert set(found) == {"extract-stages", "extract-report"}
    told = found["extract-stages"].description
    assert told.startswith("1 failed, all else is complete") and "expected a readable video file" in told
    assert "\\[x\\](javascript:1) &lt;b&gt;" in told and "<b>" not in told

    (store / "reports").rename(tmp_path / "away")
    (store / "reports").write_text("no folder")
    with caplog.at_level(logging.WARNING, "flows.artifacts"), pytest.raises(SomeFailedError):
        deployments.extract(str(data), str(store), dask_address=dask_address)
    assert [record.message for record in caplog.records if "artifacts of this run are not complete" in record.message]
