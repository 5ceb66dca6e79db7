"""Tests of the Prometheus configuration, alerts and dashboard against the metrics of real servers and runs.

``test_docker_files`` tests the metrics of Dask, because it runs a scheduler and a worker. ``make check-alerts`` tests
what the rules do, with Prometheus itself.
"""

import json
import os
import re
import subprocess

import pytest

from tests.infra.operated import FILES, ROOT, missing_metrics, read_yaml, samples_used
from tests.processes import run_command

pytestmark = pytest.mark.service

MONITORING = FILES / "monitoring"
ALERTS = MONITORING / "alerts.yml"
DASHBOARD = MONITORING / "grafana" / "affwild2.json"
# Metrics of node_exporter 1.5 that the files may use; no package index has the program.
NODE = {
    "node_cpu_seconds_total",
    "node_filesystem_avail_bytes",
    "node_filesystem_files",
    "node_filesystem_files_free",
    "node_filesystem_readonly",
    "node_filesystem_size_bytes",
    "node_memory_MemAvailable_bytes",
    "node_textfile_scrape_error",
}


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


def test_every_metric_comes_from_a_known_program():
    names = {name for name, _ in samples_used(ALERTS, DASHBOARD)}
    assert {name for name in names if name.startswith("node_")} <= NODE
    assert {name.split("_")[0] for name in names} == {"affwild2", "dask", "node", "prefect", "up"}


def test_runs_have_the_metrics_of_the_alerts_and_of_the_dashboard(tmp_path):
    for name in ("metrics", "videos", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "videos" / "bad.mp4").write_bytes(b"x" * 3000)
    for folder in ("empty", "videos"):
        places = ["--store", tmp_path / "store", "--out", tmp_path / "out", "--backbone", "emotion_lite0"]
        run_command(
            *("rescore", tmp_path / folder, *places, "--settle-seconds", "0"),
            environment={"AFFWILD2_METRICS": str(tmp_path / "metrics")},
        )
    (file,) = (tmp_path / "metrics").iterdir()
    used = {(name, values) for name, values in samples_used(ALERTS, DASHBOARD) if name.startswith("affwild2_")}
    assert len(used) > 8 and missing_metrics(file.read_text(), used) == set()
    assert missing_metrics(file.read_text(), {("affwild2_run_inputs", frozenset({"lost"}))})


def test_the_dashboard_is_for_any_prometheus_and_shows_what_operators_ask_for():
    dashboard = json.loads(DASHBOARD.read_text())
    variables = {one["name"]: one["type"] for one in dashboard["templating"]["list"]}
    assert variables == {"datasource": "datasource", "store": "query"}
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert all(panel["datasource"]["uid"] == "${datasource}" and panel["targets"] for panel in panels)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    places = [(p["gridPos"]["x"], p["gridPos"]["y"], p["gridPos"]["w"], p["gridPos"]["h"]) for p in dashboard["panels"]]
    cells = [(x + i, y + j) for x, y, w, h in places for i in range(w) for j in range(h)]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24
    (provider,) = read_yaml(MONITORING / "grafana" / "provisioning" / "dashboards" / "affwild2.yaml")[0]["providers"]
    (compose,) = read_yaml(FILES / "docker" / "compose.yaml")
    assert f"../monitoring/grafana:{provider['options']['path']}:ro" in compose["services"]["grafana"]["volumes"]


def test_the_prefect_server_has_the_metrics_of_the_alerts(prefect_service):
    page = f"{prefect_service.url}/metrics"
    used = {(name, values) for name, values in samples_used(ALERTS, DASHBOARD) if name.startswith("prefect_")}
    assert used and missing_metrics(page, used) == set()
    assert missing_metrics(page, {("prefect_runs_total", frozenset())})


def test_the_guide_names_the_files():
    assert "infra/monitoring/" in (ROOT / "docs" / "monitoring.md").read_text()
