"""Import directions between rooms, read from the source; and a docstring for everything public."""

import ast
import functools
import subprocess
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("affwild2", "data_contracts", "flows", "infra", "models", "tasks")
# Room -> rooms it may import, besides itself. A trailing ".*" allows every room of a package.
ALLOWED = {
    "affwild2": {"data_contracts.*", "tasks.*"},
    "data_contracts": set(),
    "data_contracts.files": {"data_contracts"},
    "data_contracts.schemas": {"data_contracts"},
    "data_contracts.details": {"data_contracts", "data_contracts.files"},
    "data_contracts.store": {
        "data_contracts",
        "data_contracts.files",
        "data_contracts.schemas",
        "data_contracts.details",
    },
    "data_contracts.challenge": {"data_contracts", "data_contracts.files", "data_contracts.schemas"},
    "data_contracts.video": {"data_contracts", "data_contracts.files", "data_contracts.video.packet_inspection"},
    "data_contracts.video.packet_inspection": set(),
    "models.engines": {"data_contracts"},
    "models.faces": {"data_contracts", "models.engines"},
    "models.backbones": {"data_contracts", "models.engines"},
    "models.heads": {"data_contracts", "models.engines"},
    "models.heads.temporal": {"data_contracts", "models.engines", "models.heads"},
    "models.decisions": {"data_contracts", "models.engines", "models.heads"},
    "models.tuning": {"data_contracts", "models.engines", "models.heads", "models.decisions"},
    "models.recipes": {"data_contracts", "models.heads", "models.decisions"},
    "models.pretraining": {"data_contracts", "models.engines", "models.heads", "models.backbones", "models.faces"},
    "models.weight_files": {
        "data_contracts",
        "models.engines",
        "models.backbones",
        "models.faces",
        "models.heads",
        "models.heads.temporal",
    },
    "tasks": {"data_contracts.*", "models.*"},
    "tasks.extract": {"data_contracts.*", "models.*", "tasks"},
    "tasks.fit": {"data_contracts.*", "models.*", "tasks", "tasks.extract"},
    "tasks.results": {"data_contracts.*", "models.*", "tasks", "tasks.extract", "tasks.fit"},
    "tasks.images": {"data_contracts.*", "models.*", "tasks", "tasks.extract", "tasks.fit", "tasks.results"},
    "tasks.pages": {
        "data_contracts.*",
        "models.*",
        "tasks",
        "tasks.annotate",
        "tasks.extract",
        "tasks.fit",
        "tasks.results",
        "tasks.reproduce",
    },
    "tasks.annotate": {"data_contracts.*", "models.*", "tasks", "tasks.extract", "tasks.results"},
    "tasks.reproduce": {"data_contracts.*", "models.*", "tasks", "tasks.fit"},
    "tasks.pretrain": {"data_contracts.*", "models.*", "tasks", "tasks.extract"},
    "tasks.demo": {"data_contracts.*", "models.*", "tasks"},
    "tasks.simulate": {"data_contracts.*", "models.*", "tasks", "tasks.extract", "tasks.fit", "tasks.demo"},
    # tasks.pages: its style sheet.
    "tasks.web": {"data_contracts.*", "models.*", "tasks", "tasks.extract", "tasks.pages"},
    "infra": {"data_contracts"},
    "infra.prefect": {"data_contracts"},
    "flows.engine": {"data_contracts.*", "models.engines", "tasks", "infra"},
    "flows.scoring": {"data_contracts.*", "models.*", "tasks.*", "flows.engine"},
    "flows": {"data_contracts.*", "models.*", "tasks.*", "infra.*", "flows.engine", "flows.scoring"},
    "flows.commands": {"data_contracts.*", "models.*", "tasks.*", "infra.*", "flows", "flows.engine"},
    "flows.pages": {"data_contracts.*", "models.*", "tasks.*", "infra.*", "flows", "flows.engine", "flows.commands"},
}
# What models and infra may use of data_contracts: values, no behaviour.
VALUES = {"data_contracts.vocabulary", "data_contracts.settings"}
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


def imported_modules(source: str) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            is_room = (ROOT / base.replace(".", "/")).is_dir()
            names += [f"{base}.{alias.name}" for alias in node.names] if is_room else [base]
    return names


def faults_of(room: str, source: str) -> list[str]:
    package, allowed, faults = room.split(".")[0], ALLOWED[room], []
    for name in imported_modules(source):
        top = name.split(".")[0]
        target = name.rpartition(".")[0]
        if (top in PACKAGES and target != room and not {target, f"{top}.*"} & allowed) or (
            top == "data_contracts" and package in ("models", "infra") and name not in VALUES
        ):
            faults.append(f"{room} imports {name}")
        if top in ONLY_IN and package not in ONLY_IN[top]:
            faults.append(f"{room} imports {name}")
    return faults


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def room_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parts[:-1])


def test_imports_follow_the_allowed_directions():
    rooms = [path for path in modules() if path.name != "__init__.py" and room_of(path) in ALLOWED]
    assert len(rooms) > 100
    assert [fault for path in rooms for fault in faults_of(room_of(path), path.read_text())] == []


def test_every_module_lies_in_a_known_room():
    assert {room_of(path) for path in modules()} <= {*ALLOWED, "models", "infra.docker", "infra.slurm"}


def test_a_room_has_at_most_twelve_modules():
    sizes = Counter(room_of(path) for path in modules() if path.name != "__init__.py")
    assert {room: size for room, size in sizes.items() if size > 12} == {}


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("models.heads", "from data_contracts.store import store"),
        ("models.engines", "from models.heads.metrics import score_branches"),
        ("data_contracts.files", "from data_contracts.store.manifest import Manifest"),
        ("tasks.extract", "import prefect"),
        ("tasks.fit", "def f():\n    from distributed import Client"),
        ("data_contracts.video", "import torch.nn"),
        ("infra", "from flows.engine.run import Run"),
        ("flows.engine", "from flows.extract import extract"),
    ],
)
def test_wrong_directions_are_found(room, source):
    assert len(faults_of(room, source)) == 1


def test_modules_do_not_import_one_another_in_a_circle():
    sources = {".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text() for path in modules()}
    graph = {name: {found for found in imported_modules(text) if found in sources} for name, text in sources.items()}
    TopologicalSorter(graph).prepare()
    with pytest.raises(CycleError):
        TopologicalSorter(graph | {"data_contracts.errors": {"flows.extract"}}).prepare()


def test_everything_public_has_a_docstring():
    missing = []
    for path in modules():
        tree = ast.parse(path.read_text())
        if not ast.get_docstring(tree):
            missing.append(str(path.relative_to(ROOT)))
        for node in tree.body:
            is_public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if is_public and not ast.get_docstring(node):
                missing.append(f"{path.name}: {node.name}")
    assert missing == []


PLANNING = """
import sys
import flows.deployments, flows.extract, flows.fit, flows.pretrain, flows.reproduce
import flows.rescore, flows.score, flows.submit
slow = {"torch", "timm", "facenet_pytorch", "torchvision", "openvino", "pandas", "sklearn"} & set(sys.modules)
sys.exit(f"imported {slow}" if slow else 0)
"""


def test_planning_imports_no_engine():
    subprocess.run([sys.executable, "-c", PLANNING], check=True)


@functools.cache
def file_of(module: str) -> Path | None:
    path = ROOT / module.replace(".", "/")
    return next((found for found in (path.with_suffix(".py"), path / "__init__.py") if found.is_file()), None)


@functools.cache
def names_in(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return found


def test_tests_and_benchmarks_import_existing_names():
    """No test runs the scripts of tests/benchmarks and tests/faults, so a renamed function would go unnoticed."""
    missing = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] not in (*PACKAGES, "tests"):
                continue
            module = file_of(node.module)
            missing += [
                f"{path.name}: {node.module}.{alias.name}"
                for alias in node.names
                if not (module and alias.name in names_in(module)) and not file_of(f"{node.module}.{alias.name}")
            ]
    assert missing == []
