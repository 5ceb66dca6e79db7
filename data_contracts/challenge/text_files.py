"""Small text files of others (labels, lists), read so that whatever is wrong with one is said in a line."""

from data_contracts.errors import InputError
from data_contracts.files.inputs import reading_inputs
from data_contracts.files.locations import Location

# The longest official file (a million rows of twelve units) has 40 MB.
MAX_TEXT_BYTES = 1 << 28


def read_lines(path: Location, what: str) -> list[str]:
    """Lines of a UTF-8 text file without their ends (LF or CRLF) and without blank lines at the end of the file.

    A byte order mark is left out. Only line feeds end lines: form feeds and the like inside a line shift nothing.

    Args:
        what: what the file should hold, for the message.

    Raises:
        InputError: there is no such file, it cannot be read, is not text, or is enormous.
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
        raise InputError(f"{path}: expected a text file with {what}, got bytes that are no text")
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}: line {line}: expected UTF-8 text with {what}, got other bytes") from error
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.removesuffix("\r") for line in lines]
