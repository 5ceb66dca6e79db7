"""The arrows of import, the sizes of modules, and that every module is tested: read from the source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ("data_contracts", "flows", "infra", "models", "tasks")
OURS_ALLOWED = {
    "data_contracts": set(),
    "models": set(),
    "infra": set(),
    "tasks": {"data_contracts", "models"},
    "flows": {"data_contracts", "models", "tasks", "infra"},
}
ONLY_IN = {
    "torch": {"models"},
    "timm": {"models"},
    "facenet_pytorch": {"models"},
    "openvino": {"models"},
    "numba": {"models"},
    "prefect": {"flows", "infra"},
    "dask": {"flows", "infra"},
    "distributed": {"flows", "infra"},
}
LONGEST_MODULE = 300


def faults_of(package: str, source: str) -> list[str]:
    faults = []
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for top in {name.split(".")[0] for name in names}:
            if top in HOUSE and top != package and top not in OURS_ALLOWED[package]:
                faults.append(f"{package} imports {top}")
            if top in ONLY_IN and package not in ONLY_IN[top]:
                faults.append(f"{package} imports {top}")
    return faults


def modules():
    return [path for package in HOUSE for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_and_sizes(path):
    source = path.read_text()
    assert faults_of(path.relative_to(ROOT).parts[0], source) == []
    assert len(source.splitlines()) <= LONGEST_MODULE
    assert ast.get_docstring(ast.parse(source)), "a module says what belongs in it"


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("models", "import pyarrow\nfrom data_contracts import store"),
        ("tasks", "import prefect"),
        ("tasks", "def f():\n    from distributed import Client"),
        ("data_contracts", "import torch.nn"),
        ("infra", "from flows.run import Run"),
    ],
)
def test_wrong_arrows_are_seen(package, source):
    assert len(faults_of(package, source)) == 1


def test_everything_public_says_what_it_does():
    silent = []
    for path in modules():
        for node in ast.parse(path.read_text()).body:
            is_public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if is_public and not ast.get_docstring(node):
                silent.append(f"{path.name}: {node.name}")
    assert silent == []
