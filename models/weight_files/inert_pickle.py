"""Pickles taken apart without Python's own unpickler: no name is imported, nothing that a pickle asks for is called.

Python's unpickler makes room for as many memo entries as a pickle claims, hashes and compares whatever it was told to
build, and calls what it is given. Here every operation is one of a short list, works on what came before, and costs no
more than the bytes that ask for it. What names mean is said by whoever reads.
"""

import pickletools
from collections.abc import Callable
from typing import Any

MAX_BYTES = 1 << 24
_KEYS = (str, int, float, type(None))
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": set}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = frozenset(
    {
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "INT", "LONG", "FLOAT", "UNICODE", "STRING"),
    }
)
_IGNORED = frozenset({"PROTO", "FRAME"})


class Record:
    """Stands for an object of a class that was named but not loaded; ``state`` is what the pickle gives it."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: Any = None


def read_pickle(data: bytes, *, named: Callable[[str, str], Any], persistent: Callable[[Any], Any]) -> Any:
    """What a pickle holds: plain values, lists, tuples, dicts, sets, records, and what the two functions give.

    Args:
        named: module and name to ``Record``, to a function of the arguments that the pickle gives, or to a value.
        persistent: a persistent id to the object that it stands for.

    Raises:
        ValueError: not a pickle, cut short, too long, or with an operation that is none of the short list.
        Exception: of any kind, where a damaged pickle uses a value as what it is not.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"expected a pickle of at most {MAX_BYTES >> 20} MB, got {len(data):,} bytes")
    return _Machine(named, persistent).run(data)


class _Machine:
    """Stack, marks and memo of one pickle."""

    def __init__(self, named: Callable[[str, str], Any], persistent: Callable[[Any], Any]) -> None:
        self._named, self._persistent = named, persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for operation, argument, _ in pickletools.genops(data):
            name = operation.name
            if name == "STOP":
                return self._stack.pop()
            if name in _VALUES:
                self._stack.append(argument)
            elif name in _EMPTY:
                self._stack.append(_EMPTY[name]())
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif name in _TUPLES:
                self._stack.append(tuple(reversed([self._stack.pop() for _ in range(_TUPLES[name])])))
            elif name not in _IGNORED:
                step = getattr(self, f"_{name.lower()}", None)
                if step is None:
                    raise ValueError(f"expected a pickle of layers and tensors, found the operation {name}")
                step(argument)
        raise ValueError("expected a whole pickle, got one that is cut short")

    def _since_mark(self) -> list[Any]:
        at = self._marks.pop()
        values = self._stack[at:]
        del self._stack[at:]
        return values

    def _mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def _put(self, place: Any) -> None:
        self._memo[int(place)] = self._stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: Any) -> None:
        self._put(len(self._memo))

    def _get(self, place: Any) -> None:
        self._stack.append(self._memo[int(place)])

    _binget = _long_binget = _get

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._since_mark()))

    def _append(self, _: Any) -> None:
        value = self._stack.pop()
        self._add([value])

    def _appends(self, _: Any) -> None:
        self._add(self._since_mark())

    def _additems(self, _: Any) -> None:
        self._add(self._since_mark())

    def _add(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target += values
        else:
            target.update(as_set(values))

    def _setitem(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def _setitems(self, _: Any) -> None:
        self._set(self._since_mark())

    def _set(self, values: list[Any]) -> None:
        self._stack[-1].update(as_dict(list(zip(values[::2], values[1::2], strict=True))))

    def _global(self, names: Any) -> None:
        module, name = names.split(" ", 1)
        self._stack.append(self._named(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(self._named(module, name))

    def _binpersid(self, _: Any) -> None:
        self._stack.append(self._persistent(self._stack.pop()))

    def _reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._stack.append(Record() if function is Record else function(*arguments))

    _newobj = _reduce

    def _build(self, _: Any) -> None:
        state = self._stack.pop()
        # What is set on a dict beside its items (``_metadata`` of a state dict) is of no use here.
        if isinstance(self._stack[-1], Record):
            self._stack[-1].state = state
        elif not isinstance(self._stack[-1], dict):
            raise ValueError(f"expected a state for a layer, got one for {type(self._stack[-1]).__name__}")


def as_dict(pairs: Any = ()) -> dict[Any, Any]:
    """A dict whose keys are plain values: to hash a tuple of tuples may take longer than anybody lives.

    Raises:
        ValueError: other keys.
    """
    return {_plain(key): value for key, value in pairs}


def as_set(values: Any = ()) -> set[Any]:
    """A set of plain values.

    Raises:
        ValueError: others.
    """
    return {_plain(value) for value in values}


def _plain(key: Any) -> Any:
    if not isinstance(key, _KEYS):
        raise ValueError(f"expected text or numbers for keys, got {type(key).__name__}")
    return key
