"""Tensors out of PyTorch files without running anything that they say.

A file of ``torch.save`` is a zip archive with a pickle and raw storages. A pickle of a whole module names classes and
functions to be called; here nothing that it names is ever imported or called. Names of modules, layers and tensors
become inert records, tensors are cut out of the storages by our own code, and any other name ends the reading.
"""

import io
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_MAX_BYTES = 2 << 30
_MAX_DEPTH = 64
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
_CONTAINERS = {("collections", "OrderedDict"): OrderedDict, ("builtins", "set"): set, ("__builtin__", "set"): set}
_INERT_FUNCTIONS = {("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")}
_ERRORS = (
    ArithmeticError, AttributeError, EOFError, ImportError, KeyError, IndexError, MemoryError, NotImplementedError,
    OSError, RecursionError, RuntimeError, TypeError, UnicodeError, pickle.UnpicklingError, zipfile.BadZipFile,
)  # fmt: skip


def read_pickled_tensors(path: Path) -> dict[str, Tensor]:
    """State dict (dotted name -> tensor) of a saved module or a saved state dict.

    Raises:
        ValueError: the file is damaged, of PyTorch before 1.6, holds no tensors, or names anything but layers and
            tensors; nothing of it has run.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = _Reader(archive).read()
            tensors = _state_of(root)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except _ERRORS as error:
        no_archive = isinstance(error, zipfile.BadZipFile)
        hint = " (no zip archive: cut short, or saved by PyTorch before 1.6)" if no_archive else ""
        raise ValueError(f"{path}: expected a PyTorch file with weights, got: {error or type(error)}{hint}") from error
    if not tensors:
        raise ValueError(f"{path}: expected a module or a state dict, found no tensors")
    return {_without_wrapper(name, tensors): tensor for name, tensor in tensors.items()}


class _Record:
    """Stands for an object of a class that was named but not loaded."""

    __slots__ = ("state",)

    def __init__(self, *_: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Storage:
    """Type of a storage, as the pickle names it."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


def _stand_in(name: str) -> type[_Record]:
    return type(name, (_Record,), {"__slots__": ()})


class _Reader:
    """One archive; storages are read when a tensor first needs them."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        pickles = [name for name in archive.namelist() if name.split("/")[-1] == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError(f"expected one data.pkl in the archive, found {len(pickles)}")
        self._archive, self._root = archive, pickles[0].rsplit("data.pkl", 1)[0]
        self._storages: dict[str, Tensor] = {}
        size = sum(info.file_size for info in archive.infolist())
        if size > _MAX_BYTES or any(i.compress_type != zipfile.ZIP_STORED for i in archive.infolist()):
            raise ValueError(f"expected an uncompressed archive of at most {_MAX_BYTES >> 30} GB, got {size:,} bytes")

    def read(self) -> Any:
        data = self._archive.read(f"{self._root}data.pkl")
        return _InertUnpickler(io.BytesIO(data), self).load()

    def storage(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        if key not in self._storages:
            data = self._archive.read(f"{self._root}data/{key}")
            if len(data) != count * dtype.itemsize:
                raise ValueError(f"expected storage {key} of {count} values, got {len(data):,} bytes")
            self._storages[key] = torch.from_numpy(np.frombuffer(bytearray(data), np.uint8)).view(dtype)
        return self._storages[key]


class _InertUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, reader: _Reader) -> None:
        super().__init__(file)
        self._reader = reader

    def find_class(self, module: str, name: str) -> Any:
        """Never an import: a record, a container, or one of the two functions below."""
        if (module, name) in _CONTAINERS:
            return _CONTAINERS[module, name]
        if module == "torch" and name in _DTYPES:
            return _Storage(_DTYPES[name])
        if (module, name) in _INERT_FUNCTIONS:
            return _rebuilt_tensor if name == "_rebuild_tensor_v2" else _rebuilt_parameter
        if _LAYERS.fullmatch(module) and name.isidentifier():
            return _stand_in(name)
        raise ValueError(f"expected layers and tensors only, found the name {module}.{name}; refused, nothing has run")

    def persistent_load(self, pid: Any) -> Tensor:
        """The storage of a persistent id ('storage', type, key, device, number of values)."""
        kind, storage, key, _, count = pid
        if kind != "storage" or not isinstance(storage, _Storage) or not re.fullmatch(r"\d+", key):
            raise ValueError(f"expected a storage, got {kind!r}")
        return self._reader.storage(key, storage.dtype, int(count))


def _rebuilt_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    """A view of a storage, checked to lie inside it."""
    if not isinstance(storage, Tensor) or min((offset, *size, *stride), default=0) < 0 or len(size) != len(stride):
        raise ValueError(f"expected a tensor within its storage, got offset {offset}, size {size}, stride {stride}")
    last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    if 0 not in size and last >= storage.numel():
        raise ValueError(f"expected a tensor within its storage of {storage.numel()}, got one that ends at {last}")
    return torch.as_strided(storage, size, stride, offset).clone()


def _rebuilt_parameter(data: Any, *_: object) -> Any:
    return data


def _state_of(root: Any) -> dict[str, Tensor]:
    """Tensors of a module's record, or of a dict of tensors (perhaps under ``state_dict`` or ``model``)."""
    if isinstance(root, _Record):
        return _module_state(root, "", 0)
    if isinstance(root, dict):
        for key in ("state_dict", "model"):
            if isinstance(root.get(key), dict | _Record):
                return _state_of(root[key])
        return {str(name): value for name, value in root.items() if isinstance(value, Tensor)}
    raise ValueError(f"expected a module or a state dict, got {type(root).__name__}")


def _module_state(module: _Record, prefix: str, depth: int) -> dict[str, Tensor]:
    if depth > _MAX_DEPTH or not isinstance(module.state, dict):
        raise ValueError(f"expected a module at {prefix or 'the top'}, got something else")
    passing = module.state.get("_non_persistent_buffers_set") or ()
    found: dict[str, Tensor] = {}
    for kind in ("_parameters", "_buffers"):
        for name, value in (module.state.get(kind) or {}).items():
            if isinstance(value, Tensor) and not (kind == "_buffers" and name in passing):
                found[f"{prefix}{name}"] = value
    for name, child in (module.state.get("_modules") or {}).items():
        if isinstance(child, _Record):
            found |= _module_state(child, f"{prefix}{name}.", depth + 1)
    return found


def _without_wrapper(name: str, tensors: dict[str, Tensor]) -> str:
    """Names inside ``DataParallel`` begin with ``module.``."""
    return name.removeprefix("module.") if all(n.startswith("module.") for n in tensors) else name
