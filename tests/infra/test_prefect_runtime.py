import os
from pathlib import Path

import yaml

from infra.prefect_runtime import NO_TELEMETRY, RUN_SETTINGS, SERVER_SETTINGS, TAG, has_server_url, quiet_prefect

ROOT = Path(__file__).parents[2]


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

        assert get_current_settings().flows.heartbeat_frequency == int(
            RUN_SETTINGS["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]
        )


def test_telemetry_is_off_in_all_files_and_documented():
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        assert deployment["work_pool"]["job_variables"]["env"] == RUN_SETTINGS
        assert deployment["tags"] == [TAG]
    image = (ROOT / "infra/docker/Dockerfile").read_text()
    assert all(f"{name}={value} " in image for name, value in NO_TELEMETRY.items())
    server = yaml.safe_load((ROOT / "infra/docker/compose.yaml").read_text())["services"]["prefect"]
    settings = {name: value for name, value in SERVER_SETTINGS.items() if name not in NO_TELEMETRY}
    assert settings.items() <= server["environment"].items()
    lines = (ROOT / "infra/prefect/server.env").read_text().splitlines()
    assert dict(line.split("=") for line in lines if not line.startswith("#")) == SERVER_SETTINGS
    guide = (ROOT / "docs/operations.md").read_text()
    assert all(f"{name}={SERVER_SETTINGS[name]}" in guide for name in [*NO_TELEMETRY, "HTTPS_PROXY"])
