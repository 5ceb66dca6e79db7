"""Checks of the environment that need no server; tests/infra/test_deploy.py deploys to one."""

import pytest


@pytest.fixture(scope="module")
def deploy_steps():
    """The module, imported only by the process that runs these tests: it imports Prefect."""
    from infra.prefect import deploy_steps

    return deploy_steps


@pytest.mark.parametrize(
    "text",
    ["3 o'clock", "61 3 * * *", "CRON_TZ=Nowhere/City 0 3 * * *", "CRON_TZ=UTC", "CRON_TZ= 0 3 * * *", "0 0 30 2 *"],
)
def test_a_wrong_schedule_is_refused_in_one_line(deploy_steps, monkeypatch, capsys, text):
    monkeypatch.setenv("AFFWILD2_RESCORE_CRON", text)
    with pytest.raises(SystemExit, match="2"):
        deploy_steps._read_cron()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("prefect deploy: AFFWILD2_RESCORE_CRON: expected a cron expression such as '0 3 * * *'")
    assert line.endswith(f"got {text!r}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("", "UTC")),
        (" ", ("", "UTC")),
        ("none", ("none", "UTC")),
        ("0 5 * * 1-5", ("0 5 * * 1-5", "UTC")),
        ("@daily", ("@daily", "UTC")),
        ("CRON_TZ=Europe/Berlin  0 5 * * *", ("0 5 * * *", "Europe/Berlin")),
    ],
)
def test_schedules_of_the_environment(deploy_steps, monkeypatch, text, expected):
    monkeypatch.setenv("AFFWILD2_RESCORE_CRON", text)
    assert deploy_steps._read_cron() == expected


def test_prefect_yaml_names_the_variables_of_each_deployment(deploy_steps):
    defaults = deploy_steps._read_defaults()
    assert defaults["rescore/affwild2"] == {
        "videos": "AFFWILD2_VIDEOS", "store": "AFFWILD2_STORE", "out": "AFFWILD2_OUT",
    }  # fmt: skip
    assert len(defaults) == 7 and all("store" in variables for variables in defaults.values())
