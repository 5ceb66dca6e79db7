"""Files that try to run code and damaged files: no code runs, and every error is one line."""

import io
import os
import pickle
import random
import zipfile

import pytest
import torch
from torch import nn

from models.weight_files.pickled_tensors import read_pickled_tensors
from tests.fuzz.mutations import mutate


def saved(path, value):
    torch.save(value, path)
    return path


def archive(path, data):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", data)
    return path


def calling(function, *arguments):
    """Return a pickle that calls a function when it is loaded."""
    module, name = function.rsplit(".", 1)
    body = b"".join(pickle.dumps(a, protocol=2)[2:-1] for a in arguments)
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + body + b"tR."


def test_state_dicts_are_read_with_and_without_wrappers(tmp_path):
    layer = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    for value in (
        layer.state_dict(),
        {"state_dict": layer.state_dict(), "epoch": 3},
        nn.DataParallel(layer).state_dict(),
    ):
        found = read_pickled_tensors(saved(tmp_path / "x.pt", value))
        assert found.keys() == layer.state_dict().keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in layer.state_dict().items())


def test_module_with_views_and_shared_storages_is_read(tmp_path):
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
def test_named_functions_are_not_called(tmp_path, function):
    marker = tmp_path / "ran"
    command = f"touch {marker}" if "system" in function else f"open({str(marker)!r}, 'w')"
    path = archive(tmp_path / "x.pt", calling(function, command))
    with pytest.raises(ValueError, match=r"x\.pt: "):
        read_pickled_tensors(path)
    assert not marker.exists()


def test_pickle_loads_runs_the_attack(tmp_path):
    """The same pickle runs code in ``pickle.loads``, so the test above can fail."""
    marker = tmp_path / "ran"
    pickle.loads(calling("os.system", f"touch {marker}"))
    assert marker.exists()


def test_objects_that_reduce_to_a_call_are_refused(tmp_path):
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
    [(b"", "an empty file"), (b"\x80\x02}q\x00.", "no zip archive"), (b"PK\x03\x04", "truncated; copy or download")],
)
def test_files_that_are_no_archive_are_refused(tmp_path, data, message):
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


def short(text):
    return b"\x8c" + bytes([len(text)]) + text.encode()


def doubled(depth):
    """Pickle a tuple that holds the same tuple twice, and so on: few bytes, 2 ** depth elements."""
    return b"\x80\x04)" + b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(depth))


LAYER = b"ctorch.nn.modules.container\nSequential\n)\x81"
TREE = b"\x80\x04" + LAYER + b"q\x00}" + short("_modules") + b"}sb" + b"".join(
    LAYER + b"q" + bytes([n + 1]) + b"}" + short("_modules") + b"}" + short("a") + b"h" + bytes([n]) + b"s"
    + short("b") + b"h" + bytes([n]) + b"ssb" for n in range(50))  # fmt: skip
BOMBS = {
    "a memo of billions": (
        b"\x80\x04}r\xff\xff\xff\xff.",
        "expected a memo of at most 3 entries, got number 4,294,967,295",
    ),
    "bytes of exabytes": (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x0f.", "expected 1152921504606846975 bytes"),
    "a key that cannot be hashed in time": (
        doubled(60)[:2] + b"}" + doubled(60)[2:] + b"K\x01s.",
        "for keys, got tuple",
    ),
    "a number that cannot be written in time": (b"\x80\x04I" + b"9" * 500_000 + b"\n.", "integer string conversion"),
    "modules without end": (TREE + b".", "expected a module at "),
    "itself": (b"\x80\x04}q\x00" + short("model") + b"h\x00s.", "RecursionError"),
    "an operation for other things": (b"\x80\x04K\x012.", "found the operation DUP"),
    "a name that is no text": (b"\x80\x04K\x01K\x02\x93.", "STACK_GLOBAL requires str"),
    "a stack that is empty": (b"\x80\x040.", "found the operation POP"),
    "no end": (b"\x80\x04}", "pickle exhausted before seeing STOP"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", BOMBS)
def test_resource_bombs_are_refused_in_one_line(tmp_path, name):
    data, message = BOMBS[name]
    path = archive(tmp_path / "x.pt", data)
    with pytest.raises(ValueError, match=r"x\.pt: expected ") as caught:
        read_pickled_tensors(path)
    text = str(caught.value)
    assert message in text and "\n" not in text and len(text) < 400 + len(str(path))


def with_size(value, size, stride):
    """Save a vector of four values whose pickle states another size and stride."""
    buffer = io.BytesIO()
    torch.save({"a": value}, buffer)
    with zipfile.ZipFile(buffer) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    key = next(name for name in parts if name.endswith("data.pkl"))
    assert parts[key].count(b"K\x04\x85") == 1 and parts[key].count(b"K\x01\x85") == 1
    sizes = b"J" + size.to_bytes(4, "little") + b"\x85"
    parts[key] = parts[key].replace(b"K\x04\x85", sizes).replace(b"K\x01\x85", b"K" + bytes([stride]) + b"\x85")
    return parts


def test_tensor_that_repeats_a_value_billions_of_times_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as file:
        for name, data in with_size(torch.zeros(4), 2_000_000_000, 0).items():
            file.writestr(name, data)
    with pytest.raises(ValueError, match="expected a tensor within its storage of 4"):
        read_pickled_tensors(tmp_path / "x.pt")


def test_archive_with_a_huge_directory_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as file:
        for number in range(20_000):
            file.writestr(f"{number:0200}", b"")
    with pytest.raises(ValueError, match="expected an archive of a few files, got a list of them of 4,9"):
        read_pickled_tensors(tmp_path / "x.pt")


def test_truncated_pickles_are_refused_in_one_line(tmp_path):
    buffer = io.BytesIO()
    torch.save(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), buffer)
    with zipfile.ZipFile(buffer) as file:
        (key,) = (name for name in file.namelist() if name.endswith("data.pkl"))
        data = file.read(key)
    for end in range(0, len(data), 7):
        with pytest.raises(ValueError, match=r"x\.pt: expected a PyTorch file with weights, got: "):
            read_pickled_tensors(archive(tmp_path / "x.pt", data[:end]))


def test_damaged_files_are_read_or_refused_in_one_line(tmp_path):
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


def test_states_of_classes_and_functions_change_nothing(tmp_path):
    """BUILD may set attributes of whatever is on the stack; a second file must not see them."""
    expected = {"a": torch.arange(4.0)}
    buffer = io.BytesIO()
    torch.save(expected, buffer)
    for name in (b"collections\nOrderedDict", b"builtins\nset", b"torch._utils\n_rebuild_parameter", b"torch.nn\nReLU"):
        state = b"N}" + short("add") + b"K\x01" + short("__setitem__") + b"K\x01" + short("__new__") + b"K\x01u\x86"
        hostile = b"\x80\x04c" + name + b"\n" + state.replace(b"}", b"}(", 1) + b"b."
        with pytest.raises(ValueError, match=r"x\.pt: expected a PyTorch file with weights, got: TypeError"):
            read_pickled_tensors(archive(tmp_path / "x.pt", hostile))
        path = tmp_path / "y.pt"
        path.write_bytes(buffer.getvalue())
        assert torch.equal(read_pickled_tensors(path)["a"], expected["a"])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_binary_protocol_is_read(tmp_path, protocol):
    layer = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    torch.save(layer, tmp_path / "x.pt", pickle_protocol=protocol)
    found = read_pickled_tensors(tmp_path / "x.pt")
    assert found.keys() == layer.state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in layer.state_dict().items())
