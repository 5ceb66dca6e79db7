"""A Dask scheduler here and its workers as Slurm jobs, until it is told to end: the workers end with it.

Runs on a machine that may submit jobs and that compute nodes reach. ``affwild2 ... --dask-address`` takes the address
that it prints. What a job asks Slurm for, jobqueue.yaml says.
"""

import argparse
import signal
import sys
from pathlib import Path

import dask
import yaml
from dask_jobqueue import SLURMCluster

_HERE = Path(__file__).parent


def make_cluster(kind: str, *, host: str | None = None) -> SLURMCluster:
    """A scheduler without workers yet, which makes Slurm jobs of ``kind`` (``gpu`` or ``cpu``).

    Settings of the user's own Dask configuration go before those of jobqueue.yaml. ``host`` is where the scheduler
    listens: all addresses of this machine if not given.
    """
    dask.config.update_defaults(yaml.safe_load((_HERE / "jobqueue.yaml").read_text()))
    options = {"host": host} if host else {}
    return SLURMCluster(config_name=f"affwild2-{kind}", scheduler_options=options)


def main() -> None:
    """Start a cluster as the arguments say and wait for SIGTERM or SIGINT."""
    arguments = argparse.ArgumentParser(description="A Dask cluster whose workers are Slurm jobs.")
    arguments.add_argument(
        "kind", choices=["gpu", "cpu"], help="what a job has: one GPU and workers for it, or one core"
    )
    arguments.add_argument("--jobs", type=int, required=True, help="number of Slurm jobs")
    arguments.add_argument("--host", help="address to listen on, where this machine has several")
    chosen = arguments.parse_args()
    if chosen.jobs < 1:
        arguments.error(f"--jobs: expected a number above 0, got {chosen.jobs}")
    with make_cluster(chosen.kind, host=chosen.host) as cluster:
        cluster.scale(jobs=chosen.jobs)
        print(f"--dask-address {cluster.scheduler_address}", flush=True)
        ended = signal.sigwait({signal.SIGTERM, signal.SIGINT})
    sys.exit(128 + ended)


if __name__ == "__main__":
    main()
