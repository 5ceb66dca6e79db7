"""Files that try to run something, and files that are broken: nothing runs, everything is one line."""

import io
import os
import pickle
import random
import zipfile

import pytest
import torch
from torch import nn

from models.pickled_tensors import read_pickled_tensors
from tests.fuzz.mutations import mutate


def saved(path, value):
    torch.save(value, path)
    return path


def archive(path, data):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", data)
    return path


def calling(function, *arguments):
    """A pickle that calls a function when it is loaded."""
    module, name = function.rsplit(".", 1)
    body = b"".join(pickle.dumps(a, protocol=2)[2:-1] for a in arguments)
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + body + b"tR."


def test_a_state_dict_and_its_wrappers(tmp_path):
    layer = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    for value in (
        layer.state_dict(),
        {"state_dict": layer.state_dict(), "epoch": 3},
        nn.DataParallel(layer).state_dict(),
    ):
        found = read_pickled_tensors(saved(tmp_path / "x.pt", value))
        assert found.keys() == layer.state_dict().keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in layer.state_dict().items())


def test_a_whole_module_with_views_and_shared_storages(tmp_path):
    layer = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    layer[1].weight = layer[0].weight
    layer[0].register_buffer("passing", torch.ones(2), persistent=False)
    layer[0].register_buffer("turned", torch.arange(6.0).reshape(2, 3).T)
    found = read_pickled_tensors(saved(tmp_path / "x.pt", layer))
    assert found.keys() == layer.state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in layer.state_dict().items())


@pytest.mark.parametrize(
    "function", ["os.system", "posix.system", "builtins.eval", "builtins.exec", "subprocess.Popen", "torch.load",
                 "torch.hub.load", "timm.models.helpers.os.system", "torch.nn.modules.module.os.system",
                 "numpy.core.multiarray._reconstruct", "torch.serialization._load", "runpy.run_path"],
)  # fmt: skip
def test_nothing_that_a_file_names_is_run(tmp_path, function):
    marker = tmp_path / "ran"
    command = f"touch {marker}" if "system" in function else f"open({str(marker)!r}, 'w')"
    path = archive(tmp_path / "x.pt", calling(function, command))
    with pytest.raises(ValueError, match=r"x\.pt: "):
        read_pickled_tensors(path)
    assert not marker.exists()


def test_the_attack_is_real(tmp_path):
    """The same pickle does run where pickles are trusted: the test above can fail."""
    marker = tmp_path / "ran"
    pickle.loads(calling("os.system", f"touch {marker}"))
    assert marker.exists()


def test_objects_that_reduce_to_a_call(tmp_path):
    marker = tmp_path / "ran"

    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    path = saved(tmp_path / "x.pt", {"weight": torch.zeros(2), "more": Attack()})
    with pytest.raises(ValueError, match=r"found the name posix\.system; refused, nothing has run"):
        read_pickled_tensors(path)
    assert not marker.exists()


def test_tensors_outside_their_storage_are_refused(tmp_path):
    path = saved(tmp_path / "x.pt", {"a": torch.zeros(4)})
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    key = next(name for name in parts if name.endswith("data.pkl"))
    assert parts[key].count(b"K\x04") == 2
    parts[key] = parts[key].replace(b"K\x04\x85", b"K\x09\x85")
    with zipfile.ZipFile(path, "w") as file:
        for name, data in parts.items():
            file.writestr(name, data)
    with pytest.raises(ValueError, match="expected a tensor within its storage of 4, got one that ends at 8"):
        read_pickled_tensors(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "cut short"), (b"\x80\x02}q\x00.", "cut short, or saved by PyTorch before"), (b"PK\x03\x04", "cut short")],
)
def test_no_archive_at_all(tmp_path, data, message):
    path = tmp_path / "x.pt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_pickled_tensors(path)


def test_compressed_bombs_are_refused(tmp_path):
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", bytes(10_000_000))
    with pytest.raises(ValueError, match="uncompressed archive"):
        read_pickled_tensors(path)


def test_damaged_files_are_one_line_each(tmp_path):
    buffer = io.BytesIO()
    torch.save(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), buffer)
    source, path, dice = buffer.getvalue(), tmp_path / "x.pt", random.Random(0)
    refused = 0
    for _ in range(400):
        path.write_bytes(mutate(source, dice))
        try:
            read_pickled_tensors(path)
        except ValueError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 100
