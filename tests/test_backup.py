"""Run the commands of docs/backup.md for backup and restore: nothing is left to compute, and no run is lost."""

import contextlib
import importlib.util
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data_contracts.files.locations import location
from data_contracts.store.store import Store
from flows.rescore import rescore
from tasks.extract.embed_faces import BackboneChoice
from tests.benchmarks.generated_store import fill_store, make_videos
from tests.prefect_service import serving_prefect

pytestmark = pytest.mark.service

PAGE = Path(__file__).parents[1] / "docs" / "backup.md"


def commands(heading):
    """Return the commands of a section that back up, and those that restore."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    backup, restore = re.findall(r"```sh\n(# (?:back up|restore).*?)```", section, re.DOTALL)
    return backup, restore


def run_shell(text, **variables):
    path = os.pathsep.join([str(Path(sys.executable).parent), *_postgres_programs(), os.environ["PATH"]])
    environment = os.environ | {"PATH": path} | {name: str(value) for name, value in variables.items()}
    command = ["bash", "-eu", "-o", "pipefail", "-c", text]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def _postgres_programs():
    found = importlib.util.find_spec("pgserver")
    return [f"{place}/pginstall/bin" for place in found.submodule_search_locations] if found else []


@pytest.fixture
def videos(tmp_path):
    videos = make_videos(tmp_path / "videos", 3)
    for path in videos.values():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return videos


def fill(store, out, videos):
    """Fill a store with features, predictions and a submission; return the folder of the videos."""
    fill_store(store, videos, backbone=BackboneChoice("emotion_lite0"))
    folder = next(iter(videos.values())).parent
    assert len(rescore([folder], store.url, out).scored) == 3
    store.write_bytes("submissions/abaw3-expr-1/abaw3_expr.zip", b"cannot be computed again")
    return folder


def contents_of(url):
    """Return the content of every file or object below a URL, without the lock."""
    place = location(str(url))
    files = place.fs.find(place.path) if hasattr(place, "fs") else [p for p in place.rglob("*") if p.is_file()]
    read = place.fs.cat_file if hasattr(place, "fs") else Path.read_bytes
    root = place.path if hasattr(place, "fs") else str(place)
    return {str(file).split(root)[-1]: read(file) for file in files if not str(file).endswith(".lock")}


def check_restored(store, out, folder, before):
    after = {url: contents_of(url) for url in before}
    assert after == before
    rescored = rescore([folder], store.url, out)
    assert (len(rescored.up_to_date), rescored.scored, rescored.failed) == (3, (), ())
    after = {url: contents_of(url) for url in before}
    kinds = {
        name.rsplit("/", 1)[-1] for url in before for name in after[url] if after[url][name] != before[url].get(name)
    }
    assert kinds <= {"_index.pq"}, "the run computes and writes nothing but indexes"


def test_a_store_on_a_disk_is_restored(tmp_path, videos):
    """The store is written to during the backup."""
    store, out, backup = Store(tmp_path / "store"), tmp_path / "out", tmp_path / "backup"
    folder = fill(store, out, videos)
    before = {url: contents_of(url) for url in (store.root, out)}
    variables = {"STORE": store.root, "OUT": out, "BACKUP": backup}
    backup_commands, restore_commands = commands("A store on a disk")
    is_done = threading.Event()

    def write():
        number = 0
        while not is_done.is_set():
            store.write_bytes(f"videos/video=late/{number % 50}", b"late" * 1000)
            number += 1

    writing = threading.Thread(target=write)
    writing.start()
    try:
        run_shell(backup_commands, **variables)
    finally:
        is_done.set()
        writing.join()
    for place in (store.root, out):
        shutil.rmtree(place)
    run_shell(restore_commands, **variables)
    shutil.rmtree(tmp_path / "store" / "videos" / "video=late", ignore_errors=True)
    check_restored(store, out, folder, before)


def test_a_store_on_s3_is_restored(s3_bucket, videos):
    store, out = Store(f"{s3_bucket}/store"), f"{s3_bucket}/predictions"
    folder = fill(store, location(out), videos)
    before = {url: contents_of(url) for url in (store.root, out)}
    variables = {"STORE": store.root, "OUT": out, "BACKUP": f"{s3_bucket}/backup"}
    backup_commands, restore_commands = commands("A store on S3")
    run_shell(backup_commands, **variables)
    assert {f"/store{name}" for name in before[store.root]} <= set(contents_of(f"{s3_bucket}/backup"))
    files = location(s3_bucket).fs
    for url in before:
        for key in files.find(url):
            files.rm_file(key)
    run_shell(restore_commands, **variables)
    check_restored(store, location(out), folder, before)


def add_run(url):
    """Add an ended flow run to a server; return its id."""
    from prefect.client.schemas.actions import FlowRunCreate, StateCreate
    from prefect.client.schemas.objects import StateType

    with client_of(url) as client:
        flow = client.create_flow_from_name("rescore")
        state = StateCreate(type=StateType.COMPLETED, message="3 scored")
        ended = FlowRunCreate(flow_id=flow, name="a run before the backup", state=state)
        answer = client.request("POST", "/flow_runs/", json=ended.model_dump(mode="json", exclude_unset=True))
        return answer.json()["id"]


def check_run(url, run):
    with client_of(url) as client:
        found = client.read_flow_run(run)
    assert (found.name, found.state.message) == ("a run before the backup", "3 scored")


def has_run(url, run):
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    with client_of(url) as client:
        return bool(client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run]))))


def client_of(url):
    """Prefect's own client: it repeats what a busy server with SQLite refuses with 503."""
    from prefect.client.orchestration import SyncPrefectClient

    return SyncPrefectClient(url)


def test_the_runs_of_a_server_with_sqlite_are_restored(tmp_path):
    """Then the server removes a run of 91 days ago, as documented."""
    backup_commands, restore_commands = commands("The Prefect server with SQLite")
    variables = {"PREFECT_HOME": tmp_path / "home", "BACKUP": tmp_path / "backup"}
    with serving_prefect(tmp_path) as service:
        run = add_run(service.url)
        run_shell(backup_commands, **variables)
        late = add_run(service.url)
    shutil.rmtree(tmp_path / "home")
    run_shell(restore_commands, **variables)
    with serving_prefect(tmp_path, PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS="1") as service:
        check_run(service.url, run)
        assert not has_run(service.url, late)
        kept = add_run(service.url)
        with contextlib.closing(sqlite3.connect(tmp_path / "home" / "prefect.db", timeout=60)) as database, database:
            days_ago = (datetime.now(UTC) - timedelta(days=91)).strftime("%Y-%m-%d %H:%M:%S.%f")
            database.execute("UPDATE flow_run SET end_time = ? WHERE id = ?", (days_ago, run))
        deadline = time.monotonic() + 120
        while has_run(service.url, run):
            assert time.monotonic() < deadline, "the server keeps a run of 91 days ago"
            time.sleep(0.5)
        check_run(service.url, kept)


def test_the_runs_of_a_server_with_postgresql_are_restored(tmp_path):
    from tests.postgres_server import serving_postgres

    backup_commands, restore_commands = commands("The Prefect server with PostgreSQL")
    setting = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
    with serving_postgres() as address:
        variables = {"DATABASE": f"postgresql://prefect@{address}/prefect", "BACKUP": tmp_path / "backup"}
        with serving_prefect(tmp_path, **{setting: f"postgresql+asyncpg://prefect@{address}/prefect"}) as service:
            run = add_run(service.url)
            run_shell(backup_commands, **variables)
    with serving_postgres() as address:
        variables["DATABASE"] = f"postgresql://prefect@{address}/prefect"
        run_shell(restore_commands, **variables)
        with serving_prefect(tmp_path, **{setting: f"postgresql+asyncpg://prefect@{address}/prefect"}) as service:
            check_run(service.url, run)
