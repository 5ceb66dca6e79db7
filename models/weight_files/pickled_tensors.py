"""Read the tensors of PyTorch files without executing anything that the files name.

A file of ``torch.save`` is a zip archive with a pickle and raw storages. The pickle of a whole module names classes and
functions that Python's ``pickle.load`` would import and call. Here an unpickler turns every name into an inert record,
and this module cuts the tensors out of the storages itself. A name that is neither a layer nor a tensor is an error.
"""

import io
import math
import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

_MAX_PICKLE_BYTES = 1 << 22
_MAX_BYTES = 2 << 30
# Limit of the archive's directory: zipfile reads all of it and keeps objects of ten times its size.
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
# Modules whose classes are layers. Only the state of a layer matters, not its class.
_LAYERS = re.compile(r"(torch\.nn|timm|geffnet|torchvision\.models)(\.\w+)*")
_OPCODES = frozenset(
    {
        *("PROTO", "FRAME", "STOP", "MARK", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
        *("NONE", "NEWTRUE", "NEWFALSE", "INT", "LONG", "FLOAT", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND"),
        *("APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS", "GLOBAL", "STACK_GLOBAL", "REDUCE"),
        *("NEWOBJ", "BUILD", "BINPERSID"),
    }
)
# Opcodes that create an empty dict or set, as calls of the inert classes: cMODULE\nNAME\n ) NEWOBJ.
_INERT_CONTAINERS = {"EMPTY_DICT": b"cbuiltins\ndict\n)\x81", "EMPTY_SET": b"cbuiltins\nset\n)\x81"}


def read_pickled_tensors(path: Path) -> dict[str, Tensor]:
    """Return the state dict (dotted name -> tensor) of a saved module or a saved state dict.

    Raises:
        ValueError: the file is damaged, was saved by PyTorch before 1.6, holds no tensors, or names anything besides
            layers and tensors. None of its code has run.
    """
    try:
        with open(path, "rb") as file, zipfile.ZipFile(_check_directory(file)) as archive:
            tensors = _Reader(archive).read()
    except zipfile.BadZipFile as error:
        hint = _explain_no_zip(path)
        raise ValueError(f"{path}: expected a PyTorch file with weights, got: {error} ({hint})") from error
    except Exception as error:
        # Damaged or hostile bytes can raise any exception; the caller only needs to know that the file is unusable.
        what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__} {error}"
        message = " ".join(what.split())[:300]
        raise ValueError(f"{path}: expected a PyTorch file with weights, got: {message}") from error
    if not tensors:
        raise ValueError(f"{path}: expected a module or a state dict, found no tensors")
    # ``DataParallel`` adds this prefix.
    wrapper = "module." if all(name.startswith("module.") for name in tensors) else ""
    return {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}


def _explain_no_zip(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(2)
    if not start:
        return "an empty file"
    return (
        "truncated; copy or download it again" if start == b"PK" else "no zip archive; PyTorch before 1.6 saved others"
    )


def _check_directory(file: IO[bytes]) -> IO[bytes]:
    """Return the file, after a check that its zip directory is small."""
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    size = end[zipfile._ECD_SIZE] if end else 0  # type: ignore[attr-defined]
    if size > _MAX_DIRECTORY_BYTES:
        raise ValueError(f"expected an archive of a few files, got a list of them of {size:,} bytes")
    return file


class _Record:
    """An object that a pickle describes: the arguments of its class or function, and its state. Never called."""

    __slots__ = ("arguments", "state")
    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any) -> "_Record":
        record = super().__new__(cls)
        record.arguments, record.state = arguments, None
        return record

    # A pickle can assign a state to the class itself, too; that call fails because an argument is missing.
    def __setstate__(self, state: Any) -> None:
        self.state = state


class _StorageType(_Record):
    """Type of a storage; its argument is the dtype."""


class _Storage(_Record):
    """Reference to a storage; its arguments are those of the persistent id."""


class _TensorPart(_Record):
    """A tensor as a part of a storage; its arguments are those of ``torch._utils._rebuild_tensor_v2``."""


class _Parameter(_Record):
    """A parameter; its first argument is a ``_TensorPart``."""


class _Dict(dict[Any, Any]):
    """A dict of plain keys: hashing nested tuples takes a time that is exponential in their depth."""

    def __init__(self, pairs: Any = ()) -> None:
        super().__init__()
        for key, value in pairs:
            self[key] = value

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, str | int | float | None):
            raise ValueError(f"expected text or numbers for keys, got {type(key).__name__}")
        super().__setitem__(key, value)

    def __setstate__(self, state: Any) -> None:
        """Ignore attributes such as ``_metadata`` of a state dict."""


class _Set(list[Any]):
    """A set, without hashing its items."""

    add = list.append

    def __setstate__(self, state: Any) -> None:
        """Ignore attributes."""


class _InertUnpickler(pickle.Unpickler):
    """An unpickler that imports nothing, calls nothing, and builds only records and containers."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "OrderedDict" and module == "collections":
            return _Dict
        if name in ("dict", "set") and module in ("builtins", "__builtin__"):
            return _Dict if name == "dict" else _Set
        if module == "torch" and name in _DTYPES:
            return _StorageType(_DTYPES[name])
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return _TensorPart if name == "_rebuild_tensor_v2" else _Parameter
        if _LAYERS.fullmatch(module) and name.isidentifier():
            return _Record
        raise ValueError(f"expected layers and tensors only, found the name {module}.{name}; refused, nothing has run")

    def persistent_load(self, pid: Any) -> Any:
        return _Storage(*pid)


def _with_inert_containers(data: bytes) -> bytearray:
    """Check every opcode, and replace those for dicts and sets, which hash their items, by calls of inert classes.

    Raises:
        ValueError: an opcode that no layer or tensor needs, a memo far larger than the pickle, or a pickle cut short.
    """
    checked, start, is_copied = bytearray(), 0, False
    for opcode, argument, place in pickletools.genops(data):
        position = place or 0
        if opcode.name not in _OPCODES:
            raise ValueError(f"expected a pickle of layers and tensors, found the operation {opcode.name}")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > position:
            # The unpickler allocates memory for all smaller numbers as well.
            raise ValueError(f"expected a memo of at most {position:,} entries, got number {argument:,}")
        checked += data[start:position] if is_copied else b""
        checked += _INERT_CONTAINERS.get(opcode.name, b"")
        # Frames are optional, and their lengths are wrong after the replacement.
        start, is_copied = position, opcode.name not in ("FRAME", *_INERT_CONTAINERS)
    return checked + b"."


class _Reader:
    """One archive; a storage is read when the first tensor needs it."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        pickles = [name for name in archive.namelist() if name.split("/")[-1] == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError(f"expected one data.pkl in the archive, found {len(pickles)}")
        self._archive, self._root = archive, pickles[0].rsplit("data.pkl", 1)[0]
        self._storages: dict[str, Tensor] = {}
        self._copied_bytes = 0
        size = sum(info.file_size for info in archive.infolist())
        if size > _MAX_BYTES or any(i.compress_type != zipfile.ZIP_STORED for i in archive.infolist()):
            raise ValueError(f"expected an uncompressed archive of at most {_MAX_BYTES >> 30} GB, got {size:,} bytes")

    def read(self) -> dict[str, Tensor]:
        """Return the tensors of the archive by name."""
        path = f"{self._root}data.pkl"
        if self._archive.getinfo(path).file_size > _MAX_PICKLE_BYTES:
            raise ValueError(f"expected a data.pkl of at most {_MAX_PICKLE_BYTES >> 20} MB, got a larger one")
        data = _with_inert_containers(self._archive.read(path))
        parts = _parts_of(_InertUnpickler(io.BytesIO(data)).load())
        return {name: self._copy_tensor(part) for name, part in parts.items()}

    def _read_storage(self, record: Any) -> Tensor:
        """Read the storage of a persistent id ('storage', type, key, device, number of values)."""
        kind, storage_type, key, _, count = record.arguments if isinstance(record, _Storage) else (None,) * 5
        if kind != "storage" or not isinstance(storage_type, _StorageType) or not re.fullmatch(r"\d{1,9}", key):
            raise ValueError("expected a storage, got another persistent id")
        (dtype,) = storage_type.arguments
        if key not in self._storages:
            data = self._archive.read(f"{self._root}data/{key}")
            if len(data) != count * dtype.itemsize:
                raise ValueError(f"expected storage {key} of other size, got {len(data):,} bytes")
            self._storages[key] = torch.from_numpy(np.frombuffer(bytearray(data), np.uint8)).view(dtype)
        return self._storages[key]

    def _copy_tensor(self, part: _TensorPart) -> Tensor:
        """Copy a part of a storage; check that it lies inside the storage and repeats none of its values."""
        reference, offset, size, stride, *_ = part.arguments
        storage = self._read_storage(reference)
        numbers = (offset, *size, *stride)
        if len(numbers) > _MAX_DEPTH or not all(type(n) is int and 0 <= n <= _MAX_BYTES for n in numbers):
            raise ValueError("expected a tensor within its storage, got other values than its place in it")
        last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
        if 0 not in size and (last >= storage.numel() or math.prod(size) > storage.numel()):
            raise ValueError(f"expected a tensor within its storage of {storage.numel()}, got one that ends at {last}")
        self._copied_bytes += math.prod(size) * storage.dtype.itemsize
        if self._copied_bytes > _MAX_BYTES:
            raise ValueError(f"expected tensors of at most {_MAX_BYTES >> 30} GB, got more")
        return torch.as_strided(storage, size, stride, offset).clone()


def _parts_of(root: Any) -> dict[str, _TensorPart]:
    """Return the tensors of a module, or of a dict of tensors (perhaps under ``state_dict`` or ``model``), by name."""
    if type(root) is _Record:
        return _module_parts(root)
    if isinstance(root, _Dict):
        for key in ("state_dict", "model"):
            if isinstance(root.get(key), _Dict) or type(root.get(key)) is _Record:
                return _parts_of(root[key])
        return {str(name): part for name, value in root.items() if (part := _part_of(value)) is not None}
    raise ValueError(f"expected a module or a state dict, got {type(root).__name__}")


def _part_of(value: Any) -> _TensorPart | None:
    """Return the tensor of a tensor or parameter; None for anything else."""
    if isinstance(value, _Parameter):
        value = value.arguments[0]
    return value if isinstance(value, _TensorPart) else None


def _module_parts(root: _Record) -> dict[str, _TensorPart]:
    """Return the tensors of a module and of its submodules by dotted name, outer modules first."""
    found: dict[str, _TensorPart] = {}
    waiting, seen = [("", root, 0)], 0
    while waiting:
        prefix, module, depth = waiting.pop()
        seen += 1
        # In a small file, modules that share submodules or contain each other can form an endless tree.
        if depth > _MAX_DEPTH or seen > _MAX_MODULES or not isinstance(module.state, _Dict):
            raise ValueError(f"expected a module at {prefix[:80] or 'the top'}, got something else")
        omitted = module.state.get("_non_persistent_buffers_set") or ()
        for kind in ("_parameters", "_buffers"):
            for name, value in (module.state.get(kind) or {}).items():
                part = _part_of(value)
                if part is not None and not (kind == "_buffers" and name in omitted):
                    found[f"{prefix}{name}"] = part
        children = (module.state.get("_modules") or {}).items()
        waiting += [(f"{prefix}{name}.", c, depth + 1) for name, c in reversed(children) if type(c) is _Record]
    return found
