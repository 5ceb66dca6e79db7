import os
from pathlib import Path

import yaml

from infra.prefect_runtime import SERVER_STAYS_HERE, STAYS_HERE, quiet_prefect, server_is_named

ROOT = Path(__file__).parents[2]


def test_a_server_is_named_by_its_variable(monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert not server_is_named()
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    assert server_is_named()


def test_nothing_phones_home_and_a_users_setting_stays(monkeypatch):
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "DEBUG")
    monkeypatch.delenv("DO_NOT_TRACK")
    with quiet_prefect():
        assert os.environ["DO_NOT_TRACK"] == "1"
        assert os.environ["PREFECT_LOGGING_LEVEL"] == "DEBUG"
        from prefect.settings import get_current_settings

        assert get_current_settings().flows.heartbeat_frequency is None


def test_what_keeps_prefect_from_phoning_home_is_the_same_wherever_it_is_set():
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        assert deployment["work_pool"]["job_variables"]["env"] == STAYS_HERE
    image = (ROOT / "infra/docker/Dockerfile").read_text()
    assert all(f"{name}={value} " in image for name, value in STAYS_HERE.items())
    server = yaml.safe_load((ROOT / "infra/docker/compose.yaml").read_text())["services"]["prefect"]
    assert server["environment"]["HTTPS_PROXY"] == SERVER_STAYS_HERE["HTTPS_PROXY"]
    told = (ROOT / "docs/operations.md").read_text()
    assert all(f"{name}={value}" in told for name, value in SERVER_STAYS_HERE.items())
