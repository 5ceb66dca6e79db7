import os
import re
from pathlib import Path

import yaml

from infra.prefect.runtime import (
    _JSON_CONSOLE,
    HEARTBEAT_SECONDS,
    NO_TELEMETRY,
    TAG,
    has_server_url,
    quiet_prefect,
)
from tests.prefect_service import SERVER_SETTINGS

ROOT = Path(__file__).parents[3]


def test_the_variable_names_a_server(monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert not has_server_url()
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    assert has_server_url()


def test_telemetry_is_off_and_settings_of_the_user_are_kept(monkeypatch):
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "DEBUG")
    monkeypatch.delenv("DO_NOT_TRACK")
    with quiet_prefect():
        assert os.environ["DO_NOT_TRACK"] == "1"
        assert os.environ["PREFECT_LOGGING_LEVEL"] == "DEBUG"
        from prefect.settings import get_current_settings

        assert get_current_settings().flows.heartbeat_frequency == HEARTBEAT_SECONDS


def test_telemetry_is_off_in_all_files_and_documented():
    runs = NO_TELEMETRY | {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)}
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        assert deployment["work_pool"]["job_variables"]["env"] == runs
        assert deployment["tags"] == [TAG]
    assert NO_TELEMETRY.items() <= SERVER_SETTINGS.items()
    image = (ROOT / "infra/docker/Dockerfile").read_text()
    services = (ROOT / "infra/systemd/affwild2-.service.d/common.conf").read_text()
    guide = (ROOT / "docs/operations.md").read_text()
    for setting in (f"{name}={value}" for name, value in NO_TELEMETRY.items()):
        assert all(re.search(rf"\b{setting}\b", text) for text in (image, services, guide)), setting
    assert f"HTTPS_PROXY={SERVER_SETTINGS['HTTPS_PROXY']}" in guide


def test_every_server_of_the_project_reads_one_file_of_settings():
    server = yaml.safe_load((ROOT / "infra/docker/compose.yaml").read_text())["services"]["prefect"]
    assert "../prefect/server.env" in server["env_file"] and not server["environment"].keys() & SERVER_SETTINGS.keys()
    unit = (ROOT / "infra/systemd/affwild2-prefect.service").read_text()
    assert "EnvironmentFile=/opt/affwild2/infra/prefect/server.env\n" in unit
    assert "set -a; . infra/prefect/server.env" in (ROOT / "docs/operations.md").read_text()


def test_commands_and_services_have_the_same_json_logs():
    lines = (ROOT / "infra/monitoring/json-logs.env").read_text().splitlines()
    assert {f"{name}={value}" for name, value in _JSON_CONSOLE.items()} <= set(lines)
