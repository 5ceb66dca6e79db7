"""Faults of S3, of a Dask cluster that was started by hand, and of the deployments."""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from data_contracts.files.locations import location
from tests.faults.dask_cluster import ROOT, DaskCluster, dask_cluster
from tests.faults.unattended.case import Case
from tests.faults.unattended.lab import results_of
from tests.faults.unattended.trial import Outcome, Trial
from tests.flaky_s3 import CUT_BEFORE, DENIED, SLOW_DOWN, FlakyS3, flaky_s3
from tests.flaky_s3 import Fault as S3Fault
from tests.s3_server import new_bucket, s3_environment, serving_s3, use_s3

_OUTAGE_SECONDS = 30
# As often as a video may fail before it is quarantined.
_TRIES = 3
_WRONG_KEY = (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
_TIMEOUT = {"AFFWILD2_PATIENCE_SECONDS": "60"}


def _use_s3(trial: Trial) -> FlakyS3:
    """Let the store and the predictions of a trial be on S3; return the proxy before it, which injects faults."""
    server = trial.resources.enter_context(serving_s3())
    proxy = trial.resources.enter_context(flaky_s3(server))
    use_s3(server)
    bucket = new_bucket()
    trial.environment |= s3_environment(proxy.address)
    trial.parameters |= {"store": f"{bucket}/store", "out": f"{bucket}/out"}

    def read() -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            place = location(bucket)
            place.fs.invalidate_cache()
            place.fs.get(f"{place.path.rstrip('/')}/", f"{folder}/", recursive=True)
            return results_of(Path(folder, "store"), Path(folder, "out"))

    trial.read = read
    return proxy


def _crops_on(proxy: FlakyS3, trial: Trial) -> Callable[[], None]:
    """Return a function that waits until faces are written to S3."""

    def written() -> bool:
        return any(one.method == "PUT" and "/store/faces/" in one.path for one in list(proxy.log))

    return lambda: trial.wait_until(written, "faces are written")


def _s3_outage(trial: Trial) -> None:
    proxy = _use_s3(trial)
    with trial.fault_during_a_run(_crops_on(proxy, trial)):
        proxy.spoil(S3Fault(SLOW_DOWN))
        threading.Timer(_OUTAGE_SECONDS, proxy.spoil).start()


def _s3_gone(trial: Trial) -> None:
    proxy = _use_s3(trial)
    with trial.fault_during_a_run(_crops_on(proxy, trial), to_the_end=True):
        proxy.spoil(S3Fault(CUT_BEFORE))
    proxy.spoil()


def _s3_gone_at_the_start(trial: Trial) -> None:
    proxy = _use_s3(trial)
    proxy.spoil(S3Fault(CUT_BEFORE))
    trial.run_with_fault()
    proxy.spoil()


def _wrong_credentials(trial: Trial) -> None:
    proxy = _use_s3(trial)
    proxy.spoil(S3Fault(_WRONG_KEY))
    trial.run_with_fault()
    proxy.spoil()


def _denied_from_the_second_stage_on(trial: Trial) -> None:
    """Deny all requests but those of the first stage, in as many runs as a quarantine takes."""
    proxy = _use_s3(trial)
    proxy.spoil(S3Fault(DENIED, path="/store/(faces|subjects|features|outputs)"))
    trial.run_with_fault(_TRIES)
    proxy.spoil()


def _killed_on_s3(trial: Trial) -> None:
    proxy = _use_s3(trial)
    with trial.fault_during_a_run(_crops_on(proxy, trial)) as process:
        process.kill()


def _use_cluster(trial: Trial, *options: str, workers: int = 2) -> DaskCluster:
    """Let the runs of a trial use a scheduler and workers that are started by hand."""
    cluster = trial.resources.enter_context(dask_cluster(trial.folder / "logs"))
    for _ in range(workers):
        cluster.start_worker(*options)
    cluster.wait_for_workers(workers)
    trial.parameters["dask_address"] = cluster.address
    return cluster


def _add_worker(cluster: DaskCluster) -> None:
    cluster.start_worker()
    cluster.wait_for_workers(1)


def _worker_killed(trial: Trial) -> None:
    cluster = _use_cluster(trial)
    with trial.fault_during_a_run():
        cluster.worker_processes()[0].kill()


def _scheduler_gone(trial: Trial) -> None:
    cluster = _use_cluster(trial)
    with trial.fault_during_a_run(**_TIMEOUT):
        cluster.kill_scheduler()
    cluster.end_workers()
    cluster.start_scheduler()
    _add_worker(cluster)


def _workers_gone(trial: Trial) -> None:
    cluster = _use_cluster(trial)
    with trial.fault_during_a_run(**_TIMEOUT):
        cluster.end_workers()
    _add_worker(cluster)


def _no_workers(trial: Trial) -> None:
    cluster = _use_cluster(trial, workers=0)
    trial.run_with_fault()
    _add_worker(cluster)


def _no_scheduler(trial: Trial) -> None:
    _use_cluster(trial, workers=0).kill_scheduler()
    trial.run_with_fault()
    del trial.parameters["dask_address"]


def _dashboard(trial: Trial) -> None:
    """Give the address of a web page, as that of the dashboard is."""
    trial.parameters["dask_address"] = trial.lab.service.url.replace("http", "tcp").removesuffix("/api")
    trial.run_with_fault()
    del trial.parameters["dask_address"]


def _other_version(trial: Trial) -> None:
    other = shutil.copytree(ROOT / "tasks", trial.folder / "other" / "tasks")
    (other / "units.py").write_text((other / "units.py").read_text() + "# changed\n")
    cluster = _use_cluster(trial)
    cluster.environment["PYTHONPATH"] = str(trial.folder / "other")
    worker = cluster.start_worker()
    cluster.wait_for_workers(3)
    # The worker registers after its process has started.
    time.sleep(10)
    trial.run_with_fault()
    cluster.end_worker(worker)


def _workers_with_little_memory(trial: Trial) -> None:
    cluster = _use_cluster(trial, "--memory-limit", "330MB")
    trial.run_with_fault(to_the_end=True)
    cluster.end_workers()
    _add_worker(cluster)


def _show(trial: Trial, text: str) -> None:
    """Record what the command says where there is no run."""
    trial.shown = Outcome("COMMAND", "", text, 0.0)
    trial.ended_seconds = time.monotonic() - trial.faulted


def _deploy_without_variables(trial: Trial) -> None:
    before = trial.lab.service.deployment("rescore/affwild2")
    trial.begin_fault()
    empty = dict.fromkeys(trial.lab.defaults, "")
    deployed = trial.lab.deploy(**empty)
    said = [line for line in (deployed.stdout + deployed.stderr).splitlines() if "AFFWILD2_" in line]
    _show(trial, f"code {deployed.returncode}: {said[0] if said else 'nothing'}")
    after = trial.lab.service.deployment("rescore/affwild2")
    for name in ("parameters", "schedules"):
        if _kept(before[name]) != _kept(after[name]):
            trial.problems.append(f"{name} were {before[name]}, are {after[name]}")


def _kept(value: object) -> object:
    """Return schedules without the fields that the server sets."""
    if isinstance(value, list):
        return [{key: one[key] for key in ("schedule", "active")} for one in value]
    return value


def _changed_schedule(trial: Trial) -> None:
    """Change the schedule as the web page does, then deploy again."""
    deployment = trial.lab.service.deployment("rescore/affwild2")
    schedule, path = deployment["schedules"][0], f"deployments/{deployment['id']}/schedules"
    changed = {"cron": "30 4 * * 1-5", "timezone": "Europe/Berlin", "day_or": True}
    trial.lab.service.ask("PATCH", f"{path}/{schedule['id']}", schedule=changed, active=True)
    trial.begin_fault()
    deployed = trial.lab.deploy()
    (after,) = trial.lab.service.deployment("rescore/affwild2")["schedules"]
    said = [line for line in (deployed.stdout + deployed.stderr).splitlines() if "30 4 * * 1-5" in line]
    _show(trial, f"schedule {after['schedule']['cron']}, {after['schedule']['timezone']}")
    if after["schedule"]["cron"] != changed["cron"] and not said:
        trial.problems.append("the changed schedule was reset without a word")


def _paused_schedule(trial: Trial) -> None:
    """Pause the schedule as the web page does, then deploy again."""
    deployment = trial.lab.service.deployment("rescore/affwild2")
    schedule, path = deployment["schedules"][0], f"deployments/{deployment['id']}/schedules"
    trial.lab.service.ask("PATCH", f"{path}/{schedule['id']}", active=False)
    trial.begin_fault()
    deployed = trial.lab.deploy()
    (after,) = trial.lab.service.deployment("rescore/affwild2")["schedules"]
    _show(trial, f"schedule is {'active' if after['active'] else 'paused'}")
    if after["active"] and "paused" not in deployed.stdout + deployed.stderr:
        trial.problems.append("the paused schedule was activated without a word")
    trial.lab.service.ask("PATCH", f"{path}/{after['id']}", active=True)


def _wrong_parameter(trial: Trial) -> None:
    trial.begin_fault()
    _show(trial, trial.lab.service.refusal_of("rescore/affwild2", settle_secods=3))


def _without_parameters(trial: Trial) -> None:
    """Run every deployment without parameters after ``prefect deploy --all``."""
    trial.begin_fault()
    outcomes: dict[str, list[str]] = {}
    for name in ("extract", "rescore", "score", "fit", "submit", "pretrain", "reproduce"):
        path = f"deployments/{trial.lab.service.deployment(f'{name}/affwild2')['id']}/create_flow_run"
        answer = trial.lab.service.request("POST", path, {})
        if answer.status_code == httpx.codes.CONFLICT:
            outcome = "refused: " + answer.json()["detail"].rpartition("reason: ")[2]
        else:
            trial.runs.append(answer.json()["id"])
            ended = trial.lab.service.end_of(trial.runs[-1])["state"]
            outcome = f"{ended['name']}" + (f": {ended['message']}" if ended["name"] != "Completed" else "")
        outcomes.setdefault(outcome, []).append(name)
    _show(trial, "; ".join(f"{', '.join(names)}: {outcome}" for outcome, names in outcomes.items()))


CASES = (
    Case("S3 answers 503 for 30 s", _s3_outage, ("COMPLETED",)),
    Case("S3 unreachable during a run", _s3_gone, message="bucket|S3", ended_within=300),
    Case("S3 unreachable at the start of a run", _s3_gone_at_the_start, message="S3|http"),
    Case("S3 with wrong credentials", _wrong_credentials, message="credential|key|403|[Aa]ccess"),
    Case("S3 denies access from the second stage on", _denied_from_the_second_stage_on, message="[Aa]ccess"),
    Case("`kill -9` of a run whose store is on S3", _killed_on_s3, ("CRASHED",)),
    Case("a Dask worker killed", _worker_killed, ("COMPLETED",)),
    Case("Dask scheduler gone for a minute (the timeout)", _scheduler_gone, ("FAILED", "CRASHED"), message="scheduler"),
    Case("all Dask workers gone for a minute (the timeout)", _workers_gone, ("FAILED", "CRASHED"), message="worker"),
    # The run waits for the first worker for AFFWILD2_PATIENCE_SECONDS.
    Case("Dask scheduler without workers", _no_workers, ("RUNNING",), ended_within=None),
    Case("no scheduler at `--dask-address`", _no_scheduler, message="expected a Dask scheduler", ended_within=60),
    Case("`--dask-address` of the dashboard", _dashboard, message="expected a Dask scheduler", ended_within=90),
    Case("a Dask worker of another version", _other_version, message="expected the version of affwild2"),
    Case("Dask workers with too little memory", _workers_with_little_memory, message="memory", ended_within=None),
    Case(
        "each deployment run without parameters",
        _without_parameters,
        ("COMMAND",),
        message="^extract, rescore, score: Completed; ",
        next="",
        compared=False,
        ended_within=None,
    ),
    Case("deployed again without the variables", _deploy_without_variables, ("COMMAND",), message="AFFWILD2_"),
    Case("schedule changed, deployed again", _changed_schedule, ("COMMAND",)),
    Case("schedule paused, deployed again", _paused_schedule, ("COMMAND",)),
    Case("a parameter is misspelt", _wrong_parameter, ("COMMAND",), message="settle_secods", next="", compared=False),
)
