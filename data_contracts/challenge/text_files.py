"""Read small text files (labels, lists); every fault is reported in one line."""

from data_contracts.errors import InputError
from data_contracts.files.inputs import reading_inputs
from data_contracts.files.locations import Location

# The longest official file (a million rows of twelve units) has 40 MB.
MAX_TEXT_BYTES = 1 << 28


def read_lines(path: Location, what: str) -> list[str]:
    """Return the lines of a UTF-8 text file without line ends (LF or CRLF) and without trailing blank lines.

    A byte order mark is removed. Only line feeds end lines, so that other control characters do not shift line numbers.

    Args:
        what: what the file should contain, for error messages.

    Raises:
        InputError: there is no such file, or it cannot be read, is not text, or is larger than ``MAX_TEXT_BYTES``.
    """
    try:
        with reading_inputs(path):
            size = path.stat().st_size
            data = b"" if size > MAX_TEXT_BYTES else path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: expected a text file with {what}, got: {error.strerror}") from error
    if size > MAX_TEXT_BYTES:
        raise InputError(f"{path}: expected a text file with {what}, got {size:,} bytes; choose another file")
    if b"\0" in data:
        raise InputError(f"{path}: expected a text file with {what}, got binary data")
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}: line {line}: expected UTF-8 text with {what}, got other bytes") from error
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.removesuffix("\r") for line in lines]
