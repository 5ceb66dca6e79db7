"""``affwild2 reproduce`` on the small store in ``tests/data``, whose backbone the paper does not have."""

import csv
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from data_contracts.details.heads import CellDetails
from data_contracts.errors import InputError
from data_contracts.store.bundles import list_bundles
from data_contracts.store.store import Store
from flows.commands.forget import forget
from flows.commands.parameters import ForgetParameters, StatusParameters
from flows.commands.status import print_status
from flows.engine.run_results import SomeFailedError
from flows.reproduce import reproduce
from tasks.pages.write_report import write_report
from tests.processes import run_command
from tests.tasks.pages.test_write_report import read_page

SMALL = Path(__file__).parents[1] / "data" / "store_34a2ed4"


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A store with features of six subjects, and the labels of two tasks."""
    shutil.copytree(SMALL, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Store("store")


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    """A folder with annotations and a store with all cells, which the command has fitted with one seed."""
    folder = shutil.copytree(SMALL, tmp_path_factory.mktemp("reproduced"), dirs_exist_ok=True)
    finished = run_command(
        *("reproduce", "--store", folder / "store", "--annotations", folder / "data", "--seeds", "1", "--workers", "1")
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    (folder / "printed.txt").write_text(finished.stdout)
    return folder


@pytest.fixture
def store(reproduced, tmp_path, monkeypatch):
    """A copy of the store with all cells of one seed, in the current folder."""
    shutil.copytree(reproduced, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Store("store")


@pytest.fixture
def annotations():
    """Path relative to the current folder, which is not that of the workers."""
    return Path("data", "Third ABAW Annotations")


def written_cells(store):
    """Name -> time of the last change of every cell."""
    return {one.name: Path("store", one.folder, "manifest.json").stat().st_mtime_ns for one in cells_of(store)}


def cells_of(store):
    return list_bundles(store, "reproduction/cells")


def fingerprints_of(store, task):
    return {one.name: one.fingerprint for one in cells_of(store) if CellDetails.of(one).task == task}


def values(column, label):
    rows = csv.DictReader(Path("store/reproduction/tables.csv").read_text().splitlines())
    return [row for row in rows if (row["column"], row["row"]) == (column, label) and row["backbone"]]


def test_all_tables_from_the_command_line(store, capsys):
    printed = Path("printed.txt").read_text()
    assert re.search("affwild2 extract DATA --store .*/store --backbone enet_b2_8", printed)
    # EXPR and AU have four heads each, VA and MTL two; one head per task is fitted on both sets, too.
    details = [CellDetails.of(one) for one in cells_of(store)]
    assert [sum(len(one.trained_on) == count for one in details) for count in (1, 2)] == [12, 4]
    assert all(bool(one.scores) == (one.trained_on == ("train",)) for one in details)
    (p_mtl,), (mean, *_) = values("P_MTL", "embeddings + scores"), values("EXPR", "mean of 15 frames")
    assert p_mtl["mean"] == p_mtl["lowest_seed"] != "" and p_mtl["in_paper"] == "False" and mean["mean"] != ""
    # Names of subjects are personal data.
    written = [path for path in Path("store", "reproduction").rglob("*") if path.is_file()]
    assert len(written) == 16 * 4 + 2 and not any(b"validation01" in path.read_bytes() for path in written)
    heads = {path.relative_to(SMALL): path.read_bytes() for path in (SMALL / "store" / "heads").rglob("*.*")}
    assert heads == {path: path.read_bytes() for path in Path("store", "heads").rglob("*.*")}
    text, page = read_page(store, write_report(store, name="store", written=datetime.now(UTC)))
    assert "Table 6: MTL, validation set" in text
    _, alone = read_page(store, "reports/reproduction/index.html")
    number = next(name for name in page.tables if name.startswith("Table 1"))
    assert alone.tables[number] == page.tables[number]
    print_status(StatusParameters("store"))
    assert "reproduction: 16 heads of the paper's tables" in capsys.readouterr().out


def test_only_missing_and_damaged_cells_are_fitted(store, dask_address):
    first = written_cells(store)
    (damaged, *_) = (one for one in cells_of(store) if one.name.endswith("va-embeddings-linear-seed0"))
    store.write_bytes(f"{damaged.folder}/head.safetensors", b"damaged")
    # More seeds, as after an interruption: the other cells of the first seed stay as they are.
    reproduce("store", tasks=["va"], seeds=2, dask_address=dask_address)
    second = written_cells(store)
    assert len(first) == 16 and len(second) == 16 + 3
    assert {name for name, at in first.items() if at != second[name]} == {damaged.name}
    again = next(one for one in cells_of(store) if one.name == damaged.name)
    assert again.details["scores"] == damaged.details["scores"]


def test_other_labels_make_other_cells(store, annotations, dask_address):
    before = fingerprints_of(store, "va")
    path = annotations / "VA_Estimation_Challenge" / "Train_Set" / "train01.txt"
    path.write_text(path.read_text().replace("\n0.", "\n-0.", 1))
    reproduce("store", annotations, tasks=["va"], seeds=1, dask_address=dask_address)
    after = fingerprints_of(store, "va")
    assert len(before) == 3 and before.keys() == after.keys() and not set(before.values()) & set(after.values())


def test_tasks_without_labels_stay_empty(store, dask_address, capsys):
    shutil.rmtree("store/labels/task=va")
    reproduce("store", tasks=["expr", "va"], seeds=1, dask_address=dask_address)
    printed = capsys.readouterr().out
    assert "va: the store has no labels" in printed and "--annotations DATA --task va" in printed
    assert values("F1", "embeddings") and not values("P_VA", "scores")


def test_a_cell_that_fails_does_not_stop_the_others(store, annotations, dask_address):
    (removed, *_) = (one for one in cells_of(store) if one.name.endswith("expr-scores-linear-seed0"))
    store.remove_folder(removed.folder)
    for file in (annotations / "VA_Estimation_Challenge" / "Train_Set").iterdir():
        lines = file.read_text().splitlines()
        file.write_text("\n".join([lines[0], *["-5,-5"] * (len(lines) - 1)]) + "\n")
    with pytest.raises(SomeFailedError, match="expected rows with a label and a face"):
        reproduce("store", annotations, tasks=["va", "expr"], seeds=1, dask_address=dask_address)
    assert removed.name in {one.name for one in cells_of(store)}
    assert values("F1", "scores")[0]["mean"] and not values("P_VA", "scores")


def test_a_forgotten_video_is_not_in_the_next_heads(store, dask_address, capsys):
    before = fingerprints_of(store, "va")
    forget(ForgetParameters(["train01"], "store"))
    line = "not removed: reproduction/cells: 16 heads of reproduce, fitted on this video among others; the next"
    assert line in capsys.readouterr().out
    reproduce("store", tasks=["va"], seeds=1, dask_address=dask_address)
    after = fingerprints_of(store, "va")
    assert before.keys() == after.keys() and not set(before.values()) & set(after.values())
    assert next(one for one in cells_of(store) if one.name in after).details["coverage"][0]["subjects"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["au"]}, "labels of au in store: found none"),
        ({"backbones": ["enet_b2_8"]}, "found: emotion_lite0-a65c9139; for another one run: affwild2 extract"),
        ({"source": "cropped"}, "features of source cropped in store: found none"),
        ({"annotations": "data/Third ABAW Annotations/MTL_Challenge", "tasks": ["au"]}, "expected annotations of au"),
    ],
)
def test_requests_without_data_are_refused(bare, options, message):
    with pytest.raises(InputError, match=message):
        reproduce("store", **options)
    assert cells_of(bare) == []
