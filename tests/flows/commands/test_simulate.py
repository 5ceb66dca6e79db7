"""The command ``simulate``: what it refuses, and that it continues."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from data_contracts.errors import InputError
from flows.commands import simulate
from flows.commands.parameters import SimulateParameters
from tasks.simulate import footage


@pytest.fixture
def no_footage(monkeypatch):
    """Draw no videos: tests/tasks/simulate/test_footage.py does."""
    monkeypatch.setattr(footage, "MOST_FRAMES", 0)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all data files, without manifests and accounts, which hold times and paths."""
    wanted = (path for path in sorted(folder.rglob("*")) if path.suffix in (".parquet", ".txt"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in wanted}


def test_a_second_call_continues_and_writes_the_same_bytes(tmp_path, no_footage):
    parameters = SimulateParameters(tmp_path / "out", scale=0.001, seed=3, workers=1)
    assert simulate.simulate(parameters) == 0
    first = contents(tmp_path / "out")
    features = [name for name in first if name.endswith(".parquet")]
    annotations = [name for name in first if name.endswith(".txt")]
    assert len(features) == 20
    assert len(annotations) > 40

    (tmp_path / "out" / features[7]).unlink()
    (tmp_path / "out" / annotations[0]).unlink()
    assert simulate.simulate(parameters) == 0
    assert contents(tmp_path / "out") == first


@pytest.mark.parametrize(("scale", "seed"), [(0.002, 3), (0.001, 4)])
def test_a_folder_of_another_simulation_is_refused(tmp_path, scale, seed):
    (tmp_path / simulate.MARKER).write_text(json.dumps({"scale": 0.001, "seed": 3}))

    with pytest.raises(InputError, match=r"holds a simulation of scale 0\.001 and seed 3, expected scale .* and seed"):
        simulate.simulate(SimulateParameters(tmp_path, scale=scale, seed=seed))


def test_a_folder_of_another_version_is_refused(tmp_path):
    """Labels are those of the version, so that a continued simulation would be a mixture."""
    (tmp_path / simulate.MARKER).write_text(json.dumps({"scale": 0.001, "seed": 3}))

    with pytest.raises(InputError, match="holds a simulation that another version of affwild2 made"):
        simulate.simulate(SimulateParameters(tmp_path, scale=0.001, seed=3))


@pytest.mark.parametrize("text", ["", "[]", '{"scale": 1}', "not JSON"])
def test_a_damaged_marker_is_refused(tmp_path, text):
    (tmp_path / simulate.MARKER).write_text(text)

    with pytest.raises(InputError, match="expected the marker of a simulation"):
        simulate.simulate(SimulateParameters(tmp_path))


def test_a_folder_with_other_files_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")

    with pytest.raises(InputError, match="expected an empty folder"):
        simulate.simulate(SimulateParameters(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_wrong_scale_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match=r"--scale 1\.5: expected 0\.001 to 1"):
        simulate.simulate(SimulateParameters(tmp_path / "new", scale=1.5))
    assert not (tmp_path / "new").exists()


def test_too_little_disk_space_is_refused_with_both_numbers(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12 - 3 * 10**9, 3 * 10**9))

    with pytest.raises(InputError, match=r"expected [78]\.\d GB of free disk space, found 3\.0 GB"):
        simulate.simulate(SimulateParameters(tmp_path / "new", scale=1))
    assert list(tmp_path.iterdir()) == []
