"""Tests of the Kubernetes files against the schemas of Kubernetes and of the Dask operator."""

import copy
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from infra.worker_processes import WORKER_ENVIRONMENT
from tests.infra.operated import FILES, image_environment, read_yaml, running, unknown_variables
from tests.processes import program

pytestmark = pytest.mark.service

KUBERNETES = FILES / "kubernetes"
# The operator's definition of its resources. The package itself is not installed, because it would change others.
OPERATOR = Path(sys.prefix) / "dask-kubernetes" / "dask_kubernetes" / "operator" / "deployment" / "helm"
VERSIONS = ("1.29.0", "1.37.0")


def resources_of(kind: str, folder: Path = KUBERNETES) -> list[dict]:
    """Return all resources that ``kubectl apply --kustomize`` would send for ``base`` or ``gpu``."""
    rendered = subprocess.run(
        [program("kubectl"), "kustomize", folder / kind], capture_output=True, text=True, check=False
    )
    assert rendered.returncode == 0 and not rendered.stderr, rendered.stderr
    return [document for document in yaml.safe_load_all(rendered.stdout) if document]


def of_kind(resources: list[dict], kind: str) -> dict:
    (found,) = [resource for resource in resources if resource["kind"] == kind]
    return found


def pod_specs(resources: list[dict]) -> dict[str, dict]:
    cluster = of_kind(resources, "DaskCluster")["spec"]
    flows = of_kind(resources, "Deployment")["spec"]["template"]["spec"]
    return {"scheduler": cluster["scheduler"]["spec"], "worker": cluster["worker"]["spec"], "flows": flows}


def containers(resources: list[dict]) -> list[dict]:
    specs = pod_specs(resources).values()
    return [c for spec in specs for c in [*spec.get("initContainers", ()), *spec["containers"]]]


def without_unknown_fields(schema: object) -> object:
    """Return the schema with unknown fields forbidden: an API server would drop them silently."""
    if isinstance(schema, list):
        return [without_unknown_fields(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: without_unknown_fields(part) for key, part in schema.items()}
    if schema.get("type") == "object" and "properties" in schema and "additionalProperties" not in schema:
        strict["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if schema.get("x-kubernetes-int-or-string"):
        strict["type"] = ["integer", "string"]
    return strict


@pytest.fixture(scope="module")
def dask_cluster_schema():
    from jsonschema import Draft202012Validator  # only the services environment has it

    (path,) = OPERATOR.rglob("crds/daskcluster.yaml")
    (definition,) = read_yaml(path)
    schema = without_unknown_fields(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    schema["properties"] |= {key: {} for key in ("apiVersion", "kind", "metadata")}
    return Draft202012Validator(schema)


@pytest.mark.parametrize("kind", ["base", "gpu"])
def test_every_resource_matches_its_schema(kind, dask_cluster_schema):
    import kubernetes_validate

    resources = resources_of(kind)
    cluster = of_kind(resources, "DaskCluster")
    assert [error.message for error in dask_cluster_schema.iter_errors(cluster)] == []
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": n}, "spec": s} for n, s in pod_specs(resources).items()
    ]
    for resource in [*(r for r in resources if r is not cluster), *pods]:
        for version in VERSIONS:
            kubernetes_validate.validate(resource, version, strict=True)


def test_schemas_find_a_misspelled_field(dask_cluster_schema):
    cluster = of_kind(resources_of("base"), "DaskCluster")
    for path in (("scheduler", "service", "prots"), ("worker", "replica"), ("worker", "spec", "container")):
        wrong = copy.deepcopy(cluster)
        place = wrong["spec"]
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = []
        assert [error.message for error in dask_cluster_schema.iter_errors(wrong)]


@pytest.mark.parametrize("kind", ["base", "gpu"])
def test_pods_are_confined_and_contain_no_secrets(kind):
    resources = resources_of(kind)
    for spec in pod_specs(resources).values():
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 10001
        assert spec["automountServiceAccountToken"] is False
        assert all("emptyDir" in volume for volume in spec["volumes"])
    for container in containers(resources):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/home/affwild2", "/scratch"}
    assert not [resource for resource in resources if resource["kind"] == "Secret"]
    assert not [
        n for n in of_kind(resources, "ConfigMap")["data"] if "KEY" in n or "PASSWORD" in n or "AUTH_STRING" in n
    ]


def test_selectors_match_and_every_variable_is_read():
    resources = resources_of("base")
    cluster = of_kind(resources, "DaskCluster")
    assert {c["image"] for c in containers(resources)} == {containers(resources)[0]["image"]}
    selector = cluster["spec"]["scheduler"]["service"]["selector"]
    assert selector == {"dask.org/cluster-name": cluster["metadata"]["name"], "dask.org/component": "scheduler"}
    flows = of_kind(resources, "Deployment")["spec"]
    assert flows["selector"]["matchLabels"].items() <= flows["template"]["metadata"]["labels"].items()
    policies = [r for r in resources if r["kind"] == "NetworkPolicy"]
    selected = [policy["spec"]["podSelector"] for policy in policies]
    assert {"matchLabels": flows["selector"]["matchLabels"]} in selected
    names = {variable["name"] for c in containers(resources) for variable in c.get("env", ())}
    assert unknown_variables(names | set(of_kind(resources, "ConfigMap")["data"])) == set()
    (worker,) = pod_specs(resources)["worker"]["containers"]
    given = {variable["name"]: variable["value"] for variable in worker["env"]}
    assert WORKER_ENVIRONMENT.items() <= (image_environment() | given).items()


@pytest.mark.parametrize("kind", ["base", "gpu"])
def test_every_option_of_a_command_exists(kind):
    commands = set()
    for container in containers(resources_of(kind)):
        words = container["args"]
        lines = [words] if words[0] != "sh" else [shlex.split(part) for part in words[2].split("&&")]
        commands |= {tuple(line) for line in lines}
    dask = {line for line in commands if line[0] == "dask"}
    assert len(dask) == 2
    for line in dask:
        help_text = subprocess.run(
            [program("dask"), line[1], "--help"], capture_output=True, text=True, check=True
        ).stdout
        assert [word for word in line if word.startswith("--") and word not in help_text] == []
    gpu_worker = next(line for line in dask if line[1] == "worker")
    assert ("GPU=1" in gpu_worker) == (kind == "gpu")


def policies_of(resources: list[dict]) -> dict[str, dict]:
    return {r["metadata"]["name"]: r["spec"] for r in resources if r["kind"] == "NetworkPolicy"}


@pytest.mark.parametrize("endpoint, port", [("https://s3.example.org:443", 443), ("http://10.1.2.3:8333", 8333)])
def test_pods_reach_only_the_configured_s3_server_outside_of_the_cluster(endpoint, port, tmp_path):
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    settings = tmp_path / "kubernetes" / "base" / "settings.yaml"
    text = settings.read_text()
    changed = text.replace("https://s3.example.org:443", endpoint).replace(
        "S3_CIDR: 192.0.2.0/24", "S3_CIDR: 10.1.2.3/32"
    )
    settings.write_text(changed)
    resources = resources_of("gpu", tmp_path / "kubernetes")
    assert of_kind(resources, "ConfigMap")["data"]["AWS_ENDPOINT_URL_S3"] == endpoint
    policies = policies_of(resources)
    blocks = [
        (peer["ipBlock"], rule["ports"])
        for policy in policies.values()
        for rule in policy.get("egress", ())
        for peer in rule["to"]
        if "ipBlock" in peer
    ]
    assert blocks == [({"cidr": "10.1.2.3/32"}, [{"port": port, "protocol": "TCP"}])]
    assert all(rule.get("to") for policy in policies.values() for rule in policy.get("egress", ()))
    selected = policies["to-s3"]["podSelector"]["matchExpressions"]
    assert selected == [{"key": "dask.org/component", "operator": "NotIn", "values": ["scheduler"]}]


def test_a_drain_of_nodes_ends_neither_the_scheduler_nor_a_flow():
    resources = resources_of("base")
    budgets = {r["metadata"]["name"]: r["spec"] for r in resources if r["kind"] == "PodDisruptionBudget"}
    assert (budgets["scheduler"]["minAvailable"], budgets["flow-worker"]["minAvailable"]) == (1, 1)
    assert budgets["worker"]["maxUnavailable"] == 1
    flows = of_kind(resources, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert budgets["flow-worker"]["selector"]["matchLabels"].items() <= flows.items()
    cluster = of_kind(resources, "DaskCluster")
    (controller,) = OPERATOR.parents[1].glob("controller/controller.py")
    for component in ("scheduler", "worker"):
        labels = budgets[component]["selector"]["matchLabels"]
        assert labels == {"dask.org/cluster-name": cluster["metadata"]["name"], "dask.org/component": component}
        assert f'"dask.org/component": "{component}"' in controller.read_text()


def test_requested_memory_is_what_a_process_needs():
    for container in containers(resources_of("base")):
        resources = container["resources"]
        assert resources["requests"]["memory"] in ("512Mi", "2Gi") and resources["limits"]["memory"].endswith("Gi")
    (worker,) = pod_specs(resources_of("base"))["worker"]["containers"]
    # The documented need of a worker.
    assert worker["resources"]["requests"]["memory"] == "2Gi"
    assert "- 2 GB of memory for each worker" in (FILES.parent / "docs" / "operations.md").read_text()


# As a Prefect worker: after SIGTERM it kills its run, which otherwise ends on SIGTERM.
WORKER = """(trap 'echo run ended; exit' TERM; while :; do sleep 0.1; done) & run=$!
trap 'kill -KILL $run' TERM; wait $run; echo worker ended"""


def test_a_drained_flow_worker_lets_its_runs_report_their_end(tmp_path):
    (flows,) = pod_specs(resources_of("base"))["flows"]["containers"]
    shell, option, script = flows["lifecycle"]["preStop"]["exec"]["command"]
    waits = [int(seconds) for seconds in re.findall(r"sleep (\d+)", script)]
    assert sum(waits) < pod_specs(resources_of("base"))["flows"]["terminationGracePeriodSeconds"]
    log = tmp_path / "log"
    namespace = ["unshare", "--user", "--map-root-user", "--pid", "--mount", "--fork", "--mount-proc"]
    with running([*namespace, "sh", "-c", WORKER], log=log) as process:
        for _ in range(100):
            if children := psutil.Process(process.pid).children(recursive=True)[1:]:
                break
            time.sleep(0.1)
        first = children and psutil.Process(process.pid).children()[0].pid
        enter = ["nsenter", "--target", str(first), "--user", "--preserve-credentials", "--pid", "--mount"]
        # The hook ends with the container.
        subprocess.run([*enter, shell, option, re.sub(r"sleep \d+", "sleep 2", script)], check=False, timeout=60)
        assert process.wait(20) == 0
    assert re.findall(r"^(?:run|worker).*", log.read_text(), re.M) == ["run ended", "worker ended"]
