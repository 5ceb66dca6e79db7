"""Deployed runs with and without valid parameters, on a Prefect server that stores its runs in PostgreSQL.

Logs are JSON, and the runs publish metrics.
"""

import asyncio
import contextlib
import json
import shlex
from pathlib import Path

import asyncpg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from data_contracts.store.store import Store
from tests.postgres_server import serving_postgres
from tests.prefect_service import serving_prefect
from tests.video_factory import VideoSpec, write_video

pytestmark = pytest.mark.service
JSON_LOGS = Path(__file__).parents[2] / "infra" / "monitoring" / "json-logs.env"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "metrics").mkdir()
    write_video(tmp_path / "videos/clip.mp4", VideoSpec(frame_count=4))
    return tmp_path


@pytest.fixture
def lab(folder):
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(serving_postgres())
        database = f"postgresql+asyncpg://prefect@{address}/prefect"
        variables = dict(word.split("=", 1) for word in shlex.split(JSON_LOGS.read_text(), comments=True))
        variables |= {"AFFWILD2_METRICS": str(folder / "metrics"), "PREFECT_SERVER_DATABASE_CONNECTION_URL": database}
        service = stack.enter_context(serving_prefect(folder, **variables))
        stack.enter_context(service.deployed(folder))
        yield service


async def names_of_completed_runs(database):
    connection = await asyncpg.connect(database.replace("+asyncpg", ""))
    try:
        found = await connection.fetch("select name from flow_run where state_type = 'COMPLETED'")
        return [row["name"] for row in found]
    finally:
        await connection.close()


def records_of(lab):
    """Return the lines of the worker and its runs, besides those that Prefect's command prints itself."""
    lines = [
        line for line in lab.worker_log().splitlines() if not line.startswith(("Discovered type", "Worker 'Process"))
    ]
    return [json.loads(line) for line in lines]


def outcomes_of(folder):
    texts = [path.read_text() for path in (folder / "metrics").iterdir()]
    families = [family for text in texts for family in text_string_to_metric_families(text)]
    samples = [
        one for family in families if family.name == "affwild2_run_outcome" for one in family.samples if one.value
    ]
    return {(one.labels["flow"], Path(one.labels["store"]).name, one.labels["outcome"]) for one in samples}


def test_runs_with_defaults_with_parameters_and_with_wrong_ones(lab, folder):
    nowhere = folder / "nowhere"
    options = ["--param", f"store={folder / 'other'}", "--param", "limit=1", "--param", "workers=1"]
    failed = {
        f"{nowhere}: expected a video file or a folder of videos, found nothing there": [str(nowhere)],
        "videos: expected a value, got nothing; pass one, or set AFFWILD2_VIDEOS": [""],
    }
    failed = {
        cause: lab.start_run("score/affwild2", videos=videos, out=str(folder / "out"))
        for cause, videos in failed.items()
    }
    name = f"extract {folder.name}/videos with emotion_lite0"
    for store, chosen in (("store", []), ("other", options)):
        ended = lab.end_of(lab.run_deployment("extract/affwild2", *chosen))
        assert (ended["name"], ended["state"]["name"]) == (name, "Completed")
        assert [key.item for key in Store(str(folder / store)).manifests("features")] == ["clip"]
    for cause, run in failed.items():
        ended = lab.end_of(run)
        assert ended["state"]["name"] == "Failed" and ended["state"]["message"].startswith(cause)
        (line,) = [line for line in records_of(lab) if cause in line["message"]]
        assert (line["level"], line["flow"], line["run_id"]) == ("ERROR", "score", run)
    recipe = folder / "mine.toml"
    cause = f"{recipe}: expected a recipe in TOML on the machine of this run, found nothing there; a deployed run reads"
    ended = lab.end_of(lab.start_run("fit/affwild2", task="expr", annotations=str(folder), recipe=str(recipe)))
    assert ended["state"]["name"] == "Failed" and ended["state"]["message"].startswith(cause)
    log = records_of(lab)
    errors = [line.get("flow") for line in log if line["level"] == "ERROR"]
    # The log of the last run may still be on its way.
    assert errors.count("score") == 2 and set(errors) <= {"score", "fit"}
    assert not [line for line in log if "exc_info" in line]
    assert {line["stage"] for line in log if line.get("store") == str(folder / "other") and "stage" in line}
    assert outcomes_of(folder) == {
        ("extract", "store", "succeeded"),
        ("extract", "other", "succeeded"),
        ("score", "store", "refused"),
        ("fit", "store", "refused"),
    }
    assert not (folder / "home/prefect.db").exists()
    database = lab.environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
    assert asyncio.run(names_of_completed_runs(database)) == [name, name]
