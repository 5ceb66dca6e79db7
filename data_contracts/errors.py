"""Exceptions for problems that the user can solve, and the wording of their messages.

Other failures remain ordinary exceptions.
"""

import errno
import os
from collections.abc import Sequence

# Parts of messages of the C++ library, OpenVINO, FFmpeg, torch, the C library, Arrow and the dynamic linker.
_OUT_OF_MEMORY_TEXTS = (
    "bad_alloc",
    "t allocate memory",
    "ailed to allocate",
    "not enough memory",
    "out of memory",
    "OutOfMemory",
    "ArrowMemoryError",
    "failed to map segment",
    # A thread cannot start: there is no memory for its stack, or there are too many.
    "Resource temporarily unavailable",
)


def printable(text: str) -> str:
    """Return the text on one line: line feeds, terminal escapes and undecodable bytes become escape sequences."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, which takes an s unless the count is one: ``1 file``, ``2,000 files``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def first_names(names: Sequence[str], shown: int = 3) -> str:
    """Return the first names, and an ellipsis in the place of the others: ``a, b, c, ...``."""
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")


class InputError(ValueError):
    """An invalid input.

    The message is one line: which file, what was expected, what was found, and what to do. The command line prints it
    and exits with code 2. Within a stage it becomes the failure of one unit.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class InvalidFileError(InputError):
    """An input file that was read and is invalid or exceeds a limit: another try would fail again.

    Only these errors, and inputs that crash their worker, count towards the quarantine of a unit.
    """


class RefusedFilesError(InvalidFileError):
    """Files that were refused by their names, without reading them, so no fault of the machine can be the cause."""


class WrongUnitError(InputError):
    """A unit that this work reads is wrong, and must be computed again. The run does so, and then repeats this work."""


class StoreError(InputError):
    """The store cannot be used, for example no permission or no space. Ends the run, because every unit would fail."""


def has_machine_cause(error: BaseException) -> bool:
    """Return whether a disk, memory, a permission or a missing file caused an error.

    Errors of FFmpeg do not count, because the readers of videos decide about them. An ``OSError`` without a number does
    not count either: libraries raise it for pictures that they cannot read.
    """
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        if not is_ffmpeg_error(cause) and (isinstance(cause, MemoryError) or getattr(cause, "errno", None) is not None):
            return True
        seen.append(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return False


def is_ffmpeg_error(error: BaseException) -> bool:
    """Return whether PyAV raised the error. The module is compared by its name, which avoids the import."""
    return type(error).__module__.split(".", 1)[0] == "av"


def is_missing_file(error: OSError) -> bool:
    """Return whether an error means that a path names no file. No file can have a name that is too long."""
    return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the machine had too little memory. Libraries report it by different exceptions."""
    text = f"{type(error).__name__}: {error}"
    return isinstance(error, MemoryError) or any(known in text for known in _OUT_OF_MEMORY_TEXTS)


def explain_os_error(error: OSError) -> str | None:
    """Describe an error of the operating system about one file in one line; None if it concerns no file."""
    what = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f"{error.filename}: " if error.filename else ""
        return printable(f"{where}expected free space, got: {what}; make room and run the same command again")
    if error.filename is None:
        return None
    expected, action = "a file or folder that can be used", "correct it and run again"
    if isinstance(error, PermissionError):
        expected, action = "permission to use it", "change its permissions or pass another path"
    elif isinstance(error, FileNotFoundError):
        expected, action = "a file or folder", "check the path"
    elif isinstance(error, IsADirectoryError):
        expected, action = "a file", "pass a file"
    elif isinstance(error, NotADirectoryError | FileExistsError):
        expected, action = "a folder", "pass a folder"
    path = str(error.filename).rstrip("/") or "/"
    while isinstance(error, NotADirectoryError) and not os.path.lexists(path) and os.path.dirname(path):
        path = os.path.dirname(path)
    return printable(f"{path}: expected {expected}, got: {what}; {action}")
