"""Deploying again, on a real server: what an operator changed stays, and the environment sets only what it names."""

import subprocess
import sys

import pytest

from tests.prefect_service import ROOT, serving_prefect

pytestmark = pytest.mark.service

VARIABLES = {f"AFFWILD2_{name}": f"/lab/{name.lower()}" for name in ("VIDEOS", "STORE", "OUT")}
FIRST = {"videos": ["/lab/videos"], "store": "/lab/store", "out": "/lab/out"}
ONLY_RESCORE = (sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--name", "rescore/affwild2")
NAMES = ("rescore", "extract", "fit", "score", "submit", "pretrain", "reproduce")


class Server:
    """A server, the command that deploys, and the requests that its web page sends."""

    def __init__(self, service):
        self.service = service

    def deploy(self, *command, **environment):
        env = self.service.environment | environment
        command = command or (sys.executable, "-m", "infra.prefect.deploy")
        return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)

    def refusal(self, *command, **environment):
        """Return the one line with which the command is refused."""
        ended = self.deploy(*command, **environment)
        assert ended.returncode == 2 and "Traceback" not in ended.stdout, ended.stdout + ended.stderr
        (line,) = ended.stderr.strip().splitlines()
        return line

    def reports(self, *command, **environment):
        """Deploy, and return the lines about what changed or stays."""
        ended = self.deploy(*command, **environment)
        assert ended.returncode == 0 and not ended.stderr, ended.stdout + ended.stderr
        return [line for line in ended.stdout.splitlines() if line.startswith(("work pool", *(f"{n}/" for n in NAMES)))]

    def deployment(self, flow="rescore"):
        return self.service.deployment(f"{flow}/affwild2")

    def change(self, place, method="PATCH", **body):
        answer = self.service.request(method, place, body.get("several") or body)
        assert answer.is_success, answer.text

    def pool(self):
        return self.service.ask("GET", "work_pools/affwild2")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving_prefect(tmp_path_factory.mktemp("deploy")) as service:
        yield Server(service)


@pytest.fixture(scope="module")
def created(server):
    """The server with new deployments."""
    server.reports(**VARIABLES)
    return server


@pytest.fixture
def deployed(created):
    """The same, with the schedule and the parameters of rescore as at first."""
    rescore = created.deployment()
    schedule = {"slug": "nightly", "active": True, "schedule": {"cron": "0 3 * * *", "timezone": "UTC"}}
    for one in rescore["schedules"]:
        created.change(f"deployments/{rescore['id']}/schedules/{one['id']}", "DELETE")
    created.change(f"deployments/{rescore['id']}/schedules", "POST", several=[schedule])
    created.change(f"deployments/{rescore['id']}", parameters=FIRST)
    return created


def schedules_of(deployment):
    return {
        (one["slug"], one["active"], one["schedule"].get("cron"), one["schedule"]["timezone"])
        for one in deployment["schedules"]
    }


def test_missing_variables_are_named_and_nothing_is_created(server):
    line = server.refusal(AFFWILD2_STORE="/lab/store", AFFWILD2_OUT="")
    assert line.startswith("prefect deploy: expected AFFWILD2_OUT, AFFWILD2_VIDEOS in the environment")
    found = server.service.request("POST", "deployments/filter", {}).json()
    assert found == []
    assert server.refusal(sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all") == (
        "prefect deploy: expected AFFWILD2_OUT, AFFWILD2_STORE, AFFWILD2_VIDEOS in the environment, because a "
        "deployment has no value for them yet"
    )


def test_an_address_without_a_server_and_credentials_in_a_store_are_one_line(server):
    gone = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}
    assert "expected a Prefect server at http://127.0.0.1:9/api, got no answer" in server.refusal(**gone)
    assert "expected the address of a Prefect server in PREFECT_API_URL" in server.refusal(PREFECT_API_URL="")
    line = server.refusal(**VARIABLES | {"AFFWILD2_STORE": "s3://key:secret@bucket/store"})
    assert "AFFWILD2_STORE" in line and "secret" not in line


def test_a_first_deploy_creates_everything_with_the_defaults_of_the_environment(created):
    rescore = created.deployment()
    assert rescore["parameters"] == FIRST
    assert schedules_of(rescore) == {("nightly", True, "0 3 * * *", "UTC")}
    (step,) = rescore["pull_steps"]
    assert step["prefect.deployments.steps.set_working_directory"] == {"directory": str(ROOT)}
    assert created.deployment("pretrain")["parameters"] == {"store": "/lab/store"}
    assert created.pool()["type"] == "process"


def test_a_second_deploy_keeps_what_an_operator_changed(deployed):
    before = deployed.deployment()
    place = f"deployments/{before['id']}"
    berlin = {"cron": "30 4 * * 1-5", "timezone": "Europe/Berlin"}
    deployed.change(f"{place}/schedules/{before['schedules'][0]['id']}", active=False, schedule=berlin)
    added = {"active": True, "schedule": {"cron": "0 12 * * 0", "timezone": "UTC"}, "parameters": {"workers": 1}}
    deployed.change(f"{place}/schedules", "POST", several=[added])
    env = before["job_variables"]["env"] | {"AWS_PROFILE": "lab"}
    deployed.change(
        place,
        parameters=before["parameters"] | {"heads": ["expr-default"], "workers": 2, "out": "/other"},
        tags=["affwild2", "night"],
        paused=True,
        concurrency_limit=3,
        concurrency_options={"collision_strategy": "CANCEL_NEW"},
        work_pool_name="affwild2",
        work_queue_name="slow",
        description="Ours",
        job_variables={"env": env, "stream_output": False},
    )
    deployed.change("work_pools/affwild2", concurrency_limit=5, description="Ours", is_paused=True)
    changed, pool = deployed.deployment(), deployed.pool()
    ignored = {"updated", "updated_by"}

    def without_times(deployment):
        return {key: value for key, value in deployment.items() if key not in ignored}

    lines = deployed.reports()
    assert without_times(deployed.deployment()) == without_times(changed)
    assert deployed.pool() | {"updated": None} == pool | {"updated": None}
    assert "work pool affwild2: exists, and keeps its settings" in lines
    kept = "videos=['/lab/videos'], store='/lab/store', out='/other'"
    missing = "AFFWILD2_VIDEOS, AFFWILD2_STORE, AFFWILD2_OUT"
    assert f"rescore/affwild2: keeps {kept}, because the environment has no {missing}" in lines
    assert "rescore/affwild2 is paused and stays paused" in lines

    lines = deployed.reports(**VARIABLES)
    assert "rescore/affwild2: sets out='/lab/out' from AFFWILD2_OUT; it was '/other'" in lines
    expected = changed | {"parameters": changed["parameters"] | {"out": "/lab/out"}}
    assert without_times(deployed.deployment()) == without_times(expected)
    deployed.change(place, paused=False)


def test_the_environment_sets_only_the_schedule_of_the_program(deployed):
    place = f"deployments/{deployed.deployment()['id']}/schedules"
    deployed.change(place, "POST", several=[{"active": True, "schedule": {"cron": "0 12 * * 0", "timezone": "UTC"}}])
    own = (None, True, "0 12 * * 0", "UTC")
    lines = deployed.reports(*ONLY_RESCORE, AFFWILD2_RESCORE_CRON="CRON_TZ=Asia/Tokyo 0 5 * * *")
    sets = "rescore/affwild2: sets the schedule to '0 5 * * *' Asia/Tokyo from AFFWILD2_RESCORE_CRON"
    assert f"{sets}; it was '0 3 * * *' UTC" in lines
    assert schedules_of(deployed.deployment()) == {own, ("nightly", True, "0 5 * * *", "Asia/Tokyo")}

    lines = deployed.reports(*ONLY_RESCORE, AFFWILD2_RESCORE_CRON="none")
    assert [one[:2] for one in schedules_of(deployed.deployment()) - {own}] == [("nightly", False)]
    assert [line for line in lines if "from AFFWILD2_RESCORE_CRON; it was '0 5 * * *' Asia/Tokyo" in line]
    deployed.reports(*ONLY_RESCORE, AFFWILD2_RESCORE_CRON="0 6 * * *")
    assert schedules_of(deployed.deployment()) == {own, ("nightly", False, "0 6 * * *", "UTC")}, "stays inactive"


def test_a_deleted_schedule_is_created_again_on_request(deployed):
    rescore = deployed.deployment()
    deployed.change(f"deployments/{rescore['id']}/schedules/{rescore['schedules'][0]['id']}", "DELETE")
    lines = deployed.reports(*ONLY_RESCORE, AFFWILD2_RESCORE_CRON="0 6 * * *")
    assert "rescore/affwild2: adds the schedule '0 6 * * *' UTC" in lines
    assert schedules_of(deployed.deployment()) == {("nightly", True, "0 6 * * *", "UTC")}


def test_deployments_of_an_earlier_version_get_values_and_lose_unknown_parameters(deployed):
    rescore = deployed.deployment()
    # Earlier versions stored empty defaults, and schedules without a name.
    place = f"deployments/{rescore['id']}"
    old = {"videos": [""], "store": "", "out": "/out", "old": 1}
    deployed.change(place, parameters=old, enforce_parameter_schema=False)
    deployed.change(f"{place}/schedules/{rescore['schedules'][0]['id']}", "DELETE")
    deployed.change(f"{place}/schedules", "POST", several=[{"schedule": {"cron": "0 3 * * *", "timezone": "UTC"}}])
    assert "expected AFFWILD2_STORE, AFFWILD2_VIDEOS in the environment" in deployed.refusal(*ONLY_RESCORE)
    chosen = {name: VARIABLES[name] for name in ("AFFWILD2_STORE", "AFFWILD2_VIDEOS")}
    lines = deployed.reports(*ONLY_RESCORE, **chosen, AFFWILD2_RESCORE_CRON="0 4 * * *")
    assert "rescore/affwild2: removes old=1, which is no parameter of this version" in lines
    assert deployed.deployment()["parameters"] == FIRST | {"out": "/out"}
    assert [one[1:] for one in schedules_of(deployed.deployment())] == [(True, "0 4 * * *", "UTC")]
