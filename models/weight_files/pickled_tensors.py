"""Tensors out of PyTorch files without running anything that they say.

A file of ``torch.save`` is a zip archive with a pickle and raw storages. A pickle of a whole module names classes and
functions to be called; here nothing that it names is ever imported or called (``inert_pickle``). Modules and layers
become inert records, tensors are cut out of the storages by our own code, and any other name ends the reading.
"""

import math
import re
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from models.weight_files.inert_pickle import MAX_BYTES as MAX_PICKLE_BYTES
from models.weight_files.inert_pickle import Record, as_dict, as_set, read_pickle

_MAX_BYTES = 2 << 30
# Of the archive's table of contents, which zipfile reads at once and keeps as objects ten times as large.
_MAX_DIRECTORY_BYTES = 4 << 20
_MAX_DEPTH = 64
_MAX_MODULES = 10_000
_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# Classes of layers: what they are does not matter, only the state that the pickle gives them.
_LAYERS = re.compile(r"(torch\.nn|timm|geffnet|torchvision\.models)(\.\w+)*")
_CONTAINERS = {("collections", "OrderedDict"): as_dict, ("builtins", "set"): as_set, ("__builtin__", "set"): as_set}


def read_pickled_tensors(path: Path) -> dict[str, Tensor]:
    """State dict (dotted name -> tensor) of a saved module or a saved state dict.

    Raises:
        ValueError: the file is damaged, of PyTorch before 1.6, holds no tensors, or names anything but layers and
            tensors; nothing of it has run.
    """
    try:
        with open(path, "rb") as file, zipfile.ZipFile(_checked(file)) as archive:
            tensors = _state_of(_Reader(archive).read())
    except zipfile.BadZipFile as error:
        hint = "no zip archive: cut short, or saved by PyTorch before 1.6"
        raise ValueError(f"{path}: expected a PyTorch file with weights, got: {error} ({hint})") from error
    except Exception as error:
        # Bytes that somebody has chosen may fail in any way: all that matters is that they have.
        what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__} {error}"
        message = " ".join(what.split())[:300]
        raise ValueError(f"{path}: expected a PyTorch file with weights, got: {message}") from error
    if not tensors:
        raise ValueError(f"{path}: expected a module or a state dict, found no tensors")
    # Names inside ``DataParallel``.
    wrapper = "module." if all(name.startswith("module.") for name in tensors) else ""
    return {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}


def _checked(file: IO[bytes]) -> IO[bytes]:
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    size = end[zipfile._ECD_SIZE] if end else 0  # type: ignore[attr-defined]
    if size > _MAX_DIRECTORY_BYTES:
        raise ValueError(f"expected an archive of a few files, got a list of them of {size:,} bytes")
    return file


class _Storage:
    """Type of a storage, as the pickle names it."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class _Reader:
    """One archive; storages are read when a tensor first needs them."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        pickles = [name for name in archive.namelist() if name.split("/")[-1] == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError(f"expected one data.pkl in the archive, found {len(pickles)}")
        self._archive, self._root = archive, pickles[0].rsplit("data.pkl", 1)[0]
        self._storages: dict[str, Tensor] = {}
        self._copied = 0
        size = sum(info.file_size for info in archive.infolist())
        if size > _MAX_BYTES or any(i.compress_type != zipfile.ZIP_STORED for i in archive.infolist()):
            raise ValueError(f"expected an uncompressed archive of at most {_MAX_BYTES >> 30} GB, got {size:,} bytes")

    def read(self) -> Any:
        place = f"{self._root}data.pkl"
        if self._archive.getinfo(place).file_size > MAX_PICKLE_BYTES:
            raise ValueError(f"expected a data.pkl of at most {MAX_PICKLE_BYTES >> 20} MB, got a larger one")
        return read_pickle(self._archive.read(place), named=self._named, persistent=self._storage_of)

    def _named(self, module: str, name: str) -> Any:
        """Never an import: a record, a container, the type of a storage, or one of the two functions below."""
        if (module, name) in _CONTAINERS:
            return _CONTAINERS[module, name]
        if module == "torch" and name in _DTYPES:
            return _Storage(_DTYPES[name])
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return self._rebuilt_tensor if name == "_rebuild_tensor_v2" else _rebuilt_parameter
        if _LAYERS.fullmatch(module) and name.isidentifier():
            return Record
        raise ValueError(f"expected layers and tensors only, found the name {module}.{name}; refused, nothing has run")

    def _storage_of(self, pid: Any) -> Tensor:
        """The storage of a persistent id ('storage', type, key, device, number of values)."""
        kind, storage, key, _, count = pid
        if kind != "storage" or not isinstance(storage, _Storage) or not re.fullmatch(r"\d{1,9}", key):
            raise ValueError("expected a storage, got another persistent id")
        if key not in self._storages:
            data = self._archive.read(f"{self._root}data/{key}")
            if len(data) != count * storage.dtype.itemsize:
                raise ValueError(f"expected storage {key} of other size, got {len(data):,} bytes")
            self._storages[key] = torch.from_numpy(np.frombuffer(bytearray(data), np.uint8)).view(storage.dtype)
        return self._storages[key]

    def _rebuilt_tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: object) -> Tensor:
        """A copy of a part of a storage, checked to lie inside it, and to be no more than is there."""
        numbers = (offset, *size, *stride)
        whole = len(numbers) <= _MAX_DEPTH and all(type(n) is int and 0 <= n <= _MAX_BYTES for n in numbers)
        if not isinstance(storage, Tensor) or not whole:
            raise ValueError("expected a tensor within its storage, got other values than its place in it")
        last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
        if 0 not in size and (last >= storage.numel() or math.prod(size) > storage.numel()):
            raise ValueError(f"expected a tensor within its storage of {storage.numel()}, got one that ends at {last}")
        self._copied += math.prod(size) * storage.dtype.itemsize
        if self._copied > _MAX_BYTES:
            raise ValueError(f"expected tensors of at most {_MAX_BYTES >> 30} GB, got more")
        return torch.as_strided(storage, size, stride, offset).clone()


def _rebuilt_parameter(data: Any, *_: object) -> Any:
    return data


def _state_of(root: Any) -> dict[str, Tensor]:
    """Tensors of a module's record, or of a dict of tensors (perhaps under ``state_dict`` or ``model``)."""
    if isinstance(root, Record):
        return _module_state(root)
    if isinstance(root, dict):
        for key in ("state_dict", "model"):
            if isinstance(root.get(key), dict | Record):
                return _state_of(root[key])
        return {str(name): value for name, value in root.items() if isinstance(value, Tensor)}
    raise ValueError(f"expected a module or a state dict, got {type(root).__name__}")


def _module_state(root: Record) -> dict[str, Tensor]:
    """Tensors of a module and of those inside it, by dotted name, outer ones first."""
    found: dict[str, Tensor] = {}
    waiting, seen = [("", root, 0)], 0
    while waiting:
        prefix, module, depth = waiting.pop()
        seen += 1
        # Modules may be inside each other, or a few inside of many: a small file may hold a tree without end.
        if depth > _MAX_DEPTH or seen > _MAX_MODULES or not isinstance(module.state, dict):
            raise ValueError(f"expected a module at {prefix[:80] or 'the top'}, got something else")
        passing = module.state.get("_non_persistent_buffers_set") or ()
        for kind in ("_parameters", "_buffers"):
            for name, value in (module.state.get(kind) or {}).items():
                if isinstance(value, Tensor) and not (kind == "_buffers" and name in passing):
                    found[f"{prefix}{name}"] = value
        children = (module.state.get("_modules") or {}).items()
        waiting += [(f"{prefix}{name}.", c, depth + 1) for name, c in reversed(children) if isinstance(c, Record)]
    return found
