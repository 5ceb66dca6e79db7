"""Tests of the Prometheus configuration and alerts against the metrics of real servers.

``test_docker_files`` tests the metrics of Dask, because it runs a scheduler and a worker.
"""

import os
import re
import subprocess

import pytest

from tests.infra.operated import FILES, ROOT, missing_metrics, read_yaml, samples_used

pytestmark = pytest.mark.service

MONITORING = FILES / "monitoring"
ALERTS = MONITORING / "alerts.yml"


def test_every_rule_has_a_summary_and_a_severity():
    (rules,) = read_yaml(ALERTS)
    found = [rule for group in rules["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in found}) == len(found) > 5
    for rule in found:
        assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("page", "warn") and rule["annotations"]["summary"].endswith(".")
        assert rule["expr"].count("(") == rule["expr"].count(")") and re.fullmatch(r"\d+[sm]", rule.get("for", "1m"))


def test_prometheus_scrapes_the_addresses_of_the_services():
    (settings,) = read_yaml(MONITORING / "prometheus.yml")
    (compose,) = read_yaml(FILES / "docker" / "compose.yaml")
    assert settings["rule_files"] == [ALERTS.name]
    for job in settings["scrape_configs"]:
        named = {(host, int(port)) for one in job.get("static_configs", ()) for host, port in
                 (target.split(":") for target in one["targets"])}  # fmt: skip
        named |= {(host, one["port"]) for one in job.get("dns_sd_configs", ()) for host in one["names"]}
        for host, port in named:
            service = compose["services"][host]
            text = str(service["command"]) + str(service.get("environment")) + str(service.get("healthcheck"))
            assert str(port) in text or host == "worker-gpu"
    jobs = {value for name, values in samples_used(ALERTS) for value in values if name == "up"}
    assert jobs < {job["job_name"] for job in settings["scrape_configs"]}


def test_prometheus_gets_the_unchanged_password_of_prefect(tmp_path):
    (compose,) = read_yaml(FILES / "docker" / "compose.yaml")
    (script,) = compose["services"]["prometheus"]["command"]
    script = script.replace("$$", "$").replace("/run/affwild2", str(tmp_path)).replace("exec prometheus", "echo")
    environment = os.environ | {"PREFECT_API_AUTH_STRING": "lab:a:b%s$c"}
    finished = subprocess.run(["sh", "-euc", script], env=environment, capture_output=True, text=True, check=True)
    assert "--config.file=/etc/affwild2/prometheus.yml" in finished.stdout and "a:b" not in finished.stdout
    assert ((tmp_path / "user").read_text(), (tmp_path / "password").read_text()) == ("lab", "a:b%s$c")


def test_the_prefect_server_has_the_metrics_of_the_alerts(prefect_service):
    page = f"{prefect_service.url}/metrics"
    used = {(name, values) for name, values in samples_used(ALERTS) if name.startswith("prefect_")}
    assert used and missing_metrics(page, used) == set()
    assert missing_metrics(page, {("prefect_runs_total", frozenset())})


def test_the_guide_names_the_files():
    assert "infra/monitoring/" in (ROOT / "docs" / "operations.md").read_text()
