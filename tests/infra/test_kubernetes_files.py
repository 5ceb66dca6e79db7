"""Tests of the Kubernetes files against the schemas of Kubernetes and of the Dask operator."""

import copy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from infra.worker_processes import WORKER_ENVIRONMENT
from tests.infra.operated import FILES, image_environment, read_yaml, unknown_variables
from tests.processes import program

pytestmark = pytest.mark.service

KUBERNETES = FILES / "kubernetes"
# The operator's definition of its resources. The package itself is not installed, because it would change others.
OPERATOR = Path(sys.prefix) / "dask-kubernetes" / "dask_kubernetes" / "operator" / "deployment" / "helm"
VERSIONS = ("1.29.0", "1.37.0")


def resources_of(kind: str) -> list[dict]:
    """Return all resources that ``kubectl apply --kustomize`` would send for ``base`` or ``gpu``."""
    (base,) = read_yaml(KUBERNETES / "base" / "kustomization.yaml")
    resources = [r for name in base["resources"] for r in read_yaml(KUBERNETES / "base" / name)]
    listed = set(base["resources"]) | {"kustomization.yaml"}
    assert {path.name for path in (KUBERNETES / "base").iterdir()} == listed
    if kind == "gpu":
        (overlay,) = read_yaml(KUBERNETES / "gpu" / "kustomization.yaml")
        assert overlay["resources"] == ["../base"]
        for patch in overlay["patches"]:
            (target,) = [r for r in resources if r["kind"] == patch["target"]["kind"]]
            for change in yaml.safe_load(patch["patch"]):
                replace_at(target, change)
    return resources


def replace_at(resource: dict, change: dict) -> None:
    assert change["op"] == "replace"
    *path, last = change["path"].strip("/").split("/")
    for part in path:
        resource = resource[int(part)] if isinstance(resource, list) else resource[part]
    assert last in resource
    resource[last] = change["value"]


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
