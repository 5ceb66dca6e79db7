"""A real Prefect server on a real PostgreSQL and a real worker, started and used by the documented commands.

What the server does on SQLite, as it does by default, ``test_deployments`` looks at.
"""

import asyncio
import re

import asyncpg
import pytest

from data_contracts.store.store import Store
from tests.postgres_server import serving_postgres
from tests.prefect_service import serving_prefect
from tests.video_factory import VideoSpec, write_video

DEPLOYMENTS = ("extract", "fit", "score", "rescore", "submit", "pretrain")
STAGES = ["index_videos", "crop_faces", "assign_subjects", "embed_faces"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    (folder / "videos").mkdir()
    write_video(folder / "videos/clip.mp4", VideoSpec(frame_count=4))
    return folder


@pytest.fixture(scope="module")
def lab(folder):
    """The server with its worker and every deployment of prefect.yaml, whose defaults are folders of ours."""
    defaults = {
        "AFFWILD2_VIDEOS": str(folder / "videos"),
        "AFFWILD2_STORE": str(folder / "store"),
        "AFFWILD2_OUT": str(folder / "out"),
    }
    with serving_postgres() as address, serving_prefect(folder, **database_at(address)) as service:
        created = service.prefect("work-pool", "create", "affwild2", "--type", "process")
        assert created.returncode == 0, created.stderr
        with service.working("affwild2"):
            deployed = service.prefect("--no-prompt", "deploy", "--all", environment=defaults)
            assert deployed.returncode == 0, deployed.stdout + deployed.stderr
            yield service


def database_at(address):
    return {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://prefect@{address}/prefect"}


def run_id(finished):
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return re.search(r"UUID: ([0-9a-f-]{36})", finished.stdout)[1]


def features_of(store):
    return [key.item for key in Store(str(store)).manifests("features")]


async def names_of_runs(database):
    """What PostgreSQL itself knows of runs that have ended well."""
    connection = await asyncpg.connect(database.replace("+asyncpg", ""))
    try:
        found = await connection.fetch("select name from flow_run where state_type = 'COMPLETED'")
        return [row["name"] for row in found]
    finally:
        await connection.close()


def test_bare_and_with_parameters_and_wrong_ones(lab, folder):
    bare = run_id(lab.prefect("deployment", "run", "extract/affwild2"))
    missing = lab.start_run("score/affwild2", videos=[str(folder / "nowhere")], out=str(folder / "out"))
    unset = lab.start_run("score/affwild2", videos=[""], out=str(folder / "out"))
    assert lab.end_of(bare)["state"]["name"] == "Completed"
    assert features_of(folder / "store") == ["clip"]
    assert lab.stages_of(bare) == [(name, "Completed", "0 ready, 1 done, 0 failed") for name in STAGES]

    options = ["--param", f"store={folder / 'other'}", "--param", "limit=1", "--param", "workers=1"]
    told = run_id(lab.prefect("deployment", "run", "extract/affwild2", *options))
    assert lab.end_of(told)["name"] == "extract lab0/videos with emotion_lite0"
    assert features_of(folder / "other") == ["clip"]

    for run, cause in (
        (missing, f"{folder / 'nowhere'}: expected a video file or a folder of videos, found nothing there"),
        (unset, "videos.0: expected a path or URL, got nothing"),
    ):
        ended = lab.end_of(run)
        assert ended["state"]["name"] == "Failed" and ended["state"]["message"].startswith(cause)
        (line,) = [line for line in lab.worker_log().splitlines() if cause in line]
        assert "| ERROR " in line
    log = lab.worker_log()
    assert "Traceback" not in log and log.count("ERROR") == 2
    # What the stages did is told in the run's log.
    assert log.count("embed_faces") == 4
    assert not (folder / "home/prefect.db").exists()
    names = asyncio.run(names_of_runs(lab.environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"]))
    assert names == 2 * ["extract lab0/videos with emotion_lite0"]


def test_what_a_form_would_not_take_is_refused_before_there_is_a_run(lab):
    refused = lab.prefect("deployment", "run", "extract/affwild2", "--param", "minimal_face=3")
    assert refused.returncode == 1 and "minimal_face" in refused.stdout + refused.stderr
    assert "'nonsense' is not one of" in lab.refusal_of("extract/affwild2", backbone="nonsense")
    assert "3 is less than the minimum of 20" in lab.refusal_of("extract/affwild2", min_face_px=3)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_every_parameter_of_a_form_says_what_it_is(lab, name):
    schema = lab.deployment(f"{name}/affwild2")["parameter_openapi_schema"]
    for parameter, shown in schema["properties"].items():
        assert shown["title"] == parameter
        assert len(shown["description"]) > 10, parameter
        assert {"type", "anyOf", "enum"} & set(shown), parameter
    if name == "extract":
        assert "emotion_lite0" in schema["properties"]["backbone"]["enum"]
        assert schema["properties"]["min_face_px"]["minimum"] == 20


def test_nothing_but_this_machine_was_asked_for_or_connected_to(lab):
    assert "127.0.0.1" in lab.connections()
    assert lab.connections() <= {"127.0.0.1", "localhost", "::1", "None", "file"}
