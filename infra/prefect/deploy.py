"""``python -m infra.prefect.deploy``: create the work pool if it is missing, register the deployments of prefect.yaml.

The one command for compose.yaml, Kubernetes, systemd and people. An existing work pool keeps its settings, and existing
deployments keep what an operator changed (infra/prefect/deploy_steps.py). The exit code is that of ``prefect deploy``.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

import httpx

ROOT = Path(__file__).parents[2]
POOL = "affwild2"


def main() -> None:
    """Run the command on the server of ``PREFECT_API_URL``. Wrong settings end it with one line and code 2."""
    os.chdir(ROOT)
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        _fail("expected the address of a Prefect server in PREFECT_API_URL, such as http://127.0.0.1:4200/api")
    try:
        _create_pool()
    except httpx.TransportError:
        _fail(f"PREFECT_API_URL: expected a Prefect server at {url}, got no answer; start one")
    except httpx.HTTPStatusError as error:
        _fail(
            f"PREFECT_API_URL: the server at {url} answered {error.response.status_code}; see PREFECT_API_AUTH_STRING"
        )
    from prefect.cli import app

    sys.argv = ["prefect", "--no-prompt", "deploy", "--all"]
    app()


def _create_pool() -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template))
            print(f"work pool {POOL}: created", flush=True)
        except ObjectAlreadyExists:
            print(f"work pool {POOL}: exists, and keeps its settings", flush=True)


def _fail(line: str) -> NoReturn:
    print(f"infra.prefect.deploy: {line}", file=sys.stderr, flush=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
