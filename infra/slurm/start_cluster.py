"""Run a Dask scheduler on this machine and its workers as Slurm jobs, until SIGTERM or SIGINT.

This machine must be able to submit jobs, and compute nodes must reach it. The script prints the value for ``affwild2
... --dask-address``. jobqueue.yaml defines what a job requests from Slurm. The workers end with the scheduler.
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
    """Return a scheduler without workers, which submits Slurm jobs of ``kind`` (``gpu`` or ``cpu``).

    The user's own Dask configuration overrides jobqueue.yaml. The scheduler listens on ``host``, by default on all
    addresses of this machine.
    """
    dask.config.update_defaults(yaml.safe_load((_HERE / "jobqueue.yaml").read_text()))
    options = {"host": host} if host else {}
    return SLURMCluster(config_name=f"affwild2-{kind}", scheduler_options=options)


def main() -> None:
    """Start a cluster, and wait for SIGTERM or SIGINT."""
    arguments = argparse.ArgumentParser(description="A Dask cluster whose workers are Slurm jobs.")
    arguments.add_argument(
        "kind", choices=["gpu", "cpu"], help="resources of a job: one GPU with several workers, or one core"
    )
    arguments.add_argument("--jobs", type=int, required=True, help="number of Slurm jobs")
    arguments.add_argument("--host", help="address to listen on, if this machine has several")
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
