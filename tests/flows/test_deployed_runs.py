"""Deployed runs with and without valid parameters, on a Prefect server that stores its runs in PostgreSQL."""

import asyncio
import contextlib

import asyncpg
import pytest

from data_contracts.store.store import Store
from tests.postgres_server import serving_postgres
from tests.prefect_service import serving_prefect
from tests.video_factory import VideoSpec, write_video

pytestmark = pytest.mark.service


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos/clip.mp4", VideoSpec(frame_count=4))
    return tmp_path


@pytest.fixture
def lab(folder):
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(serving_postgres())
        database = f"postgresql+asyncpg://prefect@{address}/prefect"
        service = stack.enter_context(serving_prefect(folder, PREFECT_SERVER_DATABASE_CONNECTION_URL=database))
        stack.enter_context(service.deployed(folder))
        yield service


async def names_of_completed_runs(database):
    connection = await asyncpg.connect(database.replace("+asyncpg", ""))
    try:
        found = await connection.fetch("select name from flow_run where state_type = 'COMPLETED'")
        return [row["name"] for row in found]
    finally:
        await connection.close()


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
        (line,) = [line for line in lab.worker_log().splitlines() if cause in line]
        assert "| ERROR " in line
    log = lab.worker_log()
    assert "Traceback" not in log and log.count("ERROR") == 2
    assert not (folder / "home/prefect.db").exists()
    database = lab.environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
    assert asyncio.run(names_of_completed_runs(database)) == [name, name]
