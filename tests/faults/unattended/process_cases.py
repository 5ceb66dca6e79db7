"""Faults of processes: the worker, the run, the server, the whole machine, and what operators do to runs."""

import contextlib
import signal
import time

import psutil

from tests.faults.unattended.case import Case
from tests.faults.unattended.lab import command_of
from tests.faults.unattended.small_disk import missing_for_mounts, small_disk
from tests.faults.unattended.trial import Trial

_AWAY_SECONDS = 5
_OUTAGE_SECONDS = 30
# Prefect's worker reports the end of a process twice, the second time 12 s later: a retried run would crash again.
_SECOND_REPORT_SECONDS = 20


def _kill_run(trial: Trial) -> None:
    with trial.fault_during_a_run() as process:
        process.kill()


def _end_run(trial: Trial) -> None:
    with trial.fault_during_a_run() as process:
        process.terminate()


def _end_worker(trial: Trial, number: int = signal.SIGTERM) -> None:
    with trial.fault_during_a_run():
        trial.lab.end(trial.lab.worker, number)
    trial.lab.start_worker()


def _kill_worker(trial: Trial) -> None:
    _end_worker(trial, signal.SIGKILL)


def _restart_worker(trial: Trial) -> None:
    with trial.fault_during_a_run():
        trial.lab.end(trial.lab.worker)
        trial.lab.start_worker()


def _kill_worker_and_run(trial: Trial) -> None:
    with trial.fault_during_a_run() as process:
        _replace_worker_of(trial, process)


def _replace_worker_of(trial: Trial, process: psutil.Process) -> None:
    """Kill the worker and the process of its run; start another worker."""
    trial.lab.end(trial.lab.worker, signal.SIGKILL)
    process.kill()
    trial.lab.start_worker()


def _kill_worker_and_run_next_at_once(trial: Trial) -> None:
    """Start the next run while the killed one is still shown as running."""
    with trial.fault_during_a_run() as process:
        _replace_worker_of(trial, process)
        created, first = time.monotonic(), trial.run
        following = trial.start()
        trial.run = first
    trial.follow(following, created)


def _restart_server(trial: Trial, number: int = signal.SIGTERM) -> None:
    with trial.fault_during_a_run():
        trial.lab.end(trial.lab.server, number)
        time.sleep(_AWAY_SECONDS)
        trial.lab.start_server()


def _kill_server(trial: Trial) -> None:
    _restart_server(trial, signal.SIGKILL)


def _server_gone(trial: Trial) -> None:
    """End the server for as long as the run lives."""
    with trial.fault_during_a_run() as process:
        trial.lab.end(trial.lab.server)
        psutil.wait_procs([process], timeout=600)
        trial.note = f"the process ends after {time.monotonic() - trial.faulted:.0f} s"
        trial.lab.start_server()
        trial.begin_fault()


def _reboot(trial: Trial) -> None:
    with trial.fault_during_a_run():
        trial.lab.restart()


def _reboot_at_rest(trial: Trial) -> None:
    """Restart everything while a run waits for its time: it is late then."""
    trial.lab.end_all()
    trial.lab.start_server()
    trial.run_with_fault()
    trial.lab.start_worker()
    trial.follow(trial.run, time.monotonic())


def _cancel_after_restart(trial: Trial) -> None:
    """Cancel a run whose server was away for a while."""

    def wait() -> None:
        trial.wait_for_work()
        stopped = _computing(trial.lab.processes_of(trial.run)[0])
        for one in stopped:
            one.suspend()
        trial.lab.end(trial.lab.server)
        time.sleep(_OUTAGE_SECONDS)
        trial.lab.start_server()
        for one in stopped:
            one.resume()

    with trial.fault_during_a_run(wait):
        trial.cancel()


def _cancel(trial: Trial) -> None:
    with trial.fault_during_a_run():
        family = [child for one in trial.lab.processes_of(trial.run) for child in (one, *one.children(recursive=True))]
        trial.cancel()
    _, alive = psutil.wait_procs(set(family), timeout=30)
    if alive:
        trial.problems.append(f"{len(alive)} processes outlive the cancelled run")


def _cancel_waiting(trial: Trial) -> None:
    """Cancel a run that waits for another one."""
    first = trial.start()
    trial.wait_for_work()
    trial.start()
    trial.wait_until(lambda: trial.lab.run(trial.run)["state"]["name"] == "AwaitingConcurrencySlot", "it waits")
    trial.begin_fault()
    trial.cancel()
    trial.watch()
    trial.follow(first, time.monotonic())
    trial.note = "the run that it waited for goes on"


def _retry(trial: Trial) -> None:
    with trial.fault_during_a_run() as process:
        process.kill()
    time.sleep(_SECOND_REPORT_SECONDS)
    created = time.monotonic()
    retried = trial.lab.service.prefect("flow-run", "retry", trial.run)
    assert retried.returncode == 0, retried.stdout + retried.stderr
    trial.follow(trial.run, created)


def _computing(process: psutil.Process) -> list[psutil.Process]:
    """Return the local workers of a run."""
    return [one for one in process.children(recursive=True) if "forkserver" in command_of(one)]


def _stuck(trial: Trial) -> None:
    """Stop the processes that compute, as a hanging disk or driver does; then cancel the run."""
    with trial.fault_during_a_run() as process:
        for one in (stopped := _computing(process)):
            one.suspend()
    started = time.monotonic()
    trial.cancel()
    trial.wait_for_end()
    _, alive = psutil.wait_procs(stopped, timeout=30)
    for one in alive:
        trial.problems.append(f"process {one.pid} outlives the cancelled run")
        one.kill()
    trial.note = f"cancelled by hand, seen {time.monotonic() - started:.0f} s later"


def _stuck_run(trial: Trial) -> None:
    """Stop every process of the run, which then sends no heartbeat either."""
    with trial.fault_during_a_run() as process:
        for one in (family := [process, *process.children(recursive=True)]):
            one.suspend()
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    trial.note = "its processes killed by hand"


def _second_run(trial: Trial) -> None:
    first = trial.start()
    trial.wait_for_work()
    second = trial.start()
    trial.begin_fault()
    trial.watch(run=first)
    trial.follow(second, time.monotonic())
    trial.note = "seconds count from the end of the first run"


def _without_history(trial: Trial) -> None:
    """Lose PREFECT_HOME, with the database; deploy again."""
    trial.start()
    trial.watch()
    trial.begin_fault()
    trial.lab.end_all()
    home = trial.lab.folder / "home"
    home.rename(trial.lab.folder / f"lost-{time.time():.0f}")
    trial.lab.start_server()
    answer = trial.lab.service.request("GET", f"flow_runs/{trial.run}")
    trial.runs.clear()
    trial.note = f"the lost run is {answer.status_code}"
    deployed = trial.lab.deploy()
    assert deployed.returncode == 0, deployed.stderr
    trial.lab.start_worker()


def _server_disk_full(trial: Trial) -> None:
    """Fill the disk of PREFECT_HOME during a run, for half a minute."""
    lab, home = trial.lab, trial.lab.folder / "home"
    lab.end(lab.server)
    megabytes = sum(path.stat().st_size for path in home.rglob("*") if path.is_file()) // 1_000_000 + 20
    with small_disk(home, f"{megabytes}m"):
        lab.start_server()
        with trial.fault_during_a_run():
            with open(home / "full", "wb") as filler, contextlib.suppress(OSError):
                while True:
                    filler.write(bytes(100_000))
                    filler.flush()
            time.sleep(_OUTAGE_SECONDS)
            (home / "full").unlink()
        trial.run_next()
        lab.end(lab.server)
    lab.start_server()


def _postgres() -> list[psutil.Process]:
    """Return the server of PostgreSQL, first, and its processes."""
    found = [one for one in psutil.Process().children(recursive=True) if "postgres" in one.name()]
    assert found, "PostgreSQL does not run"
    return found


def _restart_database(trial: Trial) -> None:
    """Kill a process of PostgreSQL: it then ends all connections and restarts."""
    with trial.fault_during_a_run():
        _postgres()[-1].kill()


def _stop_database(trial: Trial) -> None:
    with trial.fault_during_a_run():
        for one in (stopped := _postgres()):
            one.suspend()
        time.sleep(_OUTAGE_SECONDS)
        for one in stopped:
            one.resume()


CASES = (
    Case("`kill -9` of the run's process", _kill_run, ("CRASHED",)),
    Case("SIGTERM of the run's process", _end_run, ("CRASHED",)),
    Case("SIGTERM of the worker", _end_worker, ("CRASHED",)),
    Case("`kill -9` of the worker alone", _kill_worker, ("CRASHED", "COMPLETED")),
    Case("worker restarted during a run", _restart_worker, ("CRASHED",)),
    Case("`kill -9` of worker and run", _kill_worker_and_run, ("CRASHED",)),
    Case("`kill -9` of worker and run, next run at once", _kill_worker_and_run_next_at_once, ("CRASHED",)),
    Case("server restarted during a run", _restart_server, ("COMPLETED",)),
    Case("`kill -9` of the server, restarted", _kill_server, ("COMPLETED",)),
    Case("server gone for the rest of a run", _server_gone, ("COMPLETED", "CRASHED")),
    Case("reboot: all processes killed, all started again", _reboot, ("CRASHED",)),
    Case("no worker at the time of the schedule", _reboot_at_rest, ("SCHEDULED",), ended_within=None),
    Case("run cancelled", _cancel, ("CANCELLED",)),
    Case("run cancelled after the server was restarted", _cancel_after_restart, ("CANCELLED",)),
    Case("waiting run cancelled", _cancel_waiting, ("CANCELLED",)),
    Case("crashed run retried", _retry, ("CRASHED",)),
    Case("stuck: a unit hangs", _stuck, ("CANCELLED",), ended_within=None),
    Case("stuck: the run's process hangs", _stuck_run, ("CRASHED",)),
    Case("second run while the first one runs", _second_run, ("COMPLETED",), next_message="up to date|ready|all|3"),
    Case("`PREFECT_HOME` lost", _without_history, ("COMPLETED",)),
    Case(
        "disk of `PREFECT_HOME` full for 30 s",
        _server_disk_full,
        ("COMPLETED", "CRASHED", "FAILED"),
        needs=missing_for_mounts,
    ),
    Case("PostgreSQL restarts during a run", _restart_database, ("COMPLETED",), postgres=True),
    Case("PostgreSQL does not answer for 30 s", _stop_database, ("COMPLETED",), postgres=True),
)
