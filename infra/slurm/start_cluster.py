"""Run a Dask scheduler on this machine and its workers as Slurm jobs, until SIGTERM or SIGINT.

This machine must be able to submit jobs, and compute nodes must reach it. The cluster requires a certificate, which the
script creates in a new folder and removes at the end. It prints two lines: the first one makes a shell use the
certificate, the second one makes its commands use the cluster. jobqueue.yaml defines what a job requests from Slurm.
The workers end with the scheduler.
"""

import argparse
import queue
import shlex
import signal
import sys
import tempfile
from pathlib import Path

import dask
import yaml
from dask_jobqueue import SLURMCluster
from distributed import Security

from data_contracts.settings import DASK_ADDRESS
from infra.certificates import tls_settings, write_certificate

_HERE = Path(__file__).parent


def make_cluster(kind: str, *, certificate: Path, host: str | None = None) -> SLURMCluster:
    """Return a scheduler without workers, which submits Slurm jobs of ``kind`` (``gpu`` or ``cpu``).

    The user's own Dask configuration overrides jobqueue.yaml. The scheduler listens on ``host``, by default on all
    addresses of this machine. Its page is off, because pages have no passwords. ``certificate`` is the folder of a
    certificate, which the nodes can read.
    """
    dask.config.update_defaults(yaml.safe_load((_HERE / "jobqueue.yaml").read_text()))
    dask.config.update(dask.config.global_config, dask.config.collect_env(tls_settings(certificate)))
    dask.config.set({"distributed.scheduler.http.routes": []})
    options = {"dashboard": False, "dashboard_address": "127.0.0.1:0"} | ({"host": host} if host else {})
    return SLURMCluster(config_name=f"affwild2-{kind}", security=Security(), scheduler_options=options)


def main() -> None:
    """Start a cluster, and wait for SIGTERM or SIGINT."""
    arguments = argparse.ArgumentParser(description="A Dask cluster whose workers are Slurm jobs.")
    arguments.add_argument(
        "kind", choices=["gpu", "cpu"], help="resources of a job: one GPU with several workers, or one core"
    )
    arguments.add_argument("--jobs", type=int, required=True, help="number of Slurm jobs")
    arguments.add_argument("--host", help="address to listen on, if this machine has several")
    arguments.add_argument(
        "--certificates", type=Path, default=Path.cwd(), help="folder that the nodes can read; default: this folder"
    )
    chosen = arguments.parse_args()
    if chosen.jobs < 1:
        arguments.error(f"--jobs: expected a number above 0, got {chosen.jobs}")
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: signals.put(received))
    with tempfile.TemporaryDirectory(prefix=".affwild2-", dir=chosen.certificates) as folder:
        settings = write_certificate(Path(folder))
        with make_cluster(chosen.kind, certificate=Path(folder), host=chosen.host) as cluster:
            cluster.scale(jobs=chosen.jobs)
            print(f"set -a; . {shlex.quote(str(settings))}; set +a")
            print(f"export {DASK_ADDRESS}={cluster.scheduler_address}", flush=True)
            ended = signals.get()
    sys.exit(128 + ended)


if __name__ == "__main__":
    main()
