"""Helpers for tests of the operators' files: installed programs, known environment variables, processes."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import yaml

from tests.processes import prepare_service, program

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
FILES = ROOT / "infra"
DOCKERFILE = FILES / "docker" / "Dockerfile"
# Variables that libraries and the container runtime read. None of them can list its variables.
FOREIGN = {
    *("PATH", "HOME", "TMPDIR", "PYTHONUNBUFFERED", "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"),
    *("DO_NOT_TRACK", "HTTPS_PROXY", "NO_PROXY"),
    *("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"),
    *("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "CUDA_VISIBLE_DEVICES"),
    *("POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"),
}


def lint(name: str, *arguments: str | Path) -> str:
    """Return the output of a linter; empty if it finds nothing."""
    finished = subprocess.run([program(name), *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    return finished.stdout + finished.stderr + ("" if finished.returncode == 0 else f"exit code {finished.returncode}")


def image_environment() -> dict[str, str]:
    """Return the environment variables that the last stage of the Dockerfile sets."""
    stage = DOCKERFILE.read_text().rsplit("\nFROM ", 1)[1].replace("\\\n", " ")
    (line,) = re.findall(r"^ENV (.*)$", stage, re.M)
    return dict(word.split("=", 1) for word in shlex.split(line))


def unknown_variables(names: Iterable[str]) -> set[str]:
    """Return the variables that neither Prefect, Dask, affwild2 nor a library of ``FOREIGN`` reads."""
    from prefect.settings import Settings
    from prefect.settings.legacy import _get_settings_fields

    from infra.worker_processes import WORKER_ENVIRONMENT

    prefect = set(_get_settings_fields(Settings))
    own = _own_variables()
    known = FOREIGN | set(WORKER_ENVIRONMENT) | prefect | own
    # Grafana has a variable for each line of its configuration.
    return {name for name in names if name not in known and not _is_dask_setting(name) and name[:3] != "GF_"}


def _own_variables() -> set[str]:
    folders = [ROOT / name for name in ("data_contracts", "flows", "infra", "models", "tasks")]
    texts = [path.read_text() for folder in folders for path in folder.rglob("*.py")]
    return {name for text in texts for name in re.findall(r'"(AFFWILD2_\w+)"', text)}


def _is_dask_setting(name: str) -> bool:
    import dask
    import distributed  # noqa: F401 - brings its settings

    if not name.startswith("DASK_"):
        return False
    key = name.removeprefix("DASK_").lower().replace("__", ".")
    # "temporary-directory" has None for a default, so the key itself must be there.
    place = dask.config.config
    for part in key.split("."):
        found = dask.config.canonical_name(part, place)
        if not isinstance(place, dict) or found not in place:
            return False
        place = place[found]
    return True


@contextlib.contextmanager
def running(
    command: list[str], *, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen]:
    """Run a process in its own process group until the end of the block; its output goes to ``log``."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"} | dict(environment or {}),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=prepare_service,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def read_yaml(path: Path) -> list[dict]:
    """Return all documents of a YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def expressions_of(file: Path) -> list[str]:
    """Return the Prometheus expressions of a file of alert rules, or of a Grafana dashboard."""
    if file.suffix == ".json":
        panels = json.loads(file.read_text())["panels"]
        return [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [rule["expr"] for group in read_yaml(file)[0]["groups"] for rule in group["rules"]]


def samples_used(*files: Path) -> set[tuple[str, frozenset[str]]]:
    """Return (metric, required label values) of every selector in files of alert rules and dashboards."""
    import promql_parser  # only the services environment has it

    found = set()

    def add(node: object) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            required = [one for one in node.matchers.matchers if one.op in (equal, matches)]
            # Variables of a dashboard stand for any value.
            values = [value for one in required for value in one.value.split("|") if "$" not in one.value]
            found.add((node.name, frozenset(values)))
        return True

    equal, matches = promql_parser.MatchOp.Equal, promql_parser.MatchOp.Re
    for expression in (one for file in files for one in expressions_of(file)):
        promql_parser.walk(promql_parser.parse(expression), add)
    return found


def missing_metrics(page: str, used: Iterable[tuple[str, frozenset[str]]]) -> set[str]:
    """Return the metrics and label values that a page of metrics, by its URL or as text, lacks."""
    text = page
    if page.startswith("http://"):
        with urllib.request.urlopen(page, timeout=30) as answer:
            text = answer.read().decode()
    known = set(re.findall(r"^# TYPE (\w+) ", text, re.M))
    lines = {name: [line for line in text.splitlines() if line.startswith(name)] for name, _ in used}
    faults = {name for name, _ in used if name not in known}
    return faults | {
        f"{name} {value}"
        for name, values in used
        for value in values
        if not any(f'"{value}"' in line for line in lines[name])
    }
