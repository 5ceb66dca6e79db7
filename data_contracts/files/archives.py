"""Zip archives: find why a file is not a valid zip."""

import zipfile
from typing import IO

# A zip begins with the header of its first file, or with its end if it is empty; its list of files is at the end.
_STARTS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
TRUNCATED_ZIP = "a truncated zip (the list of files at its end is missing); copy or download it again"


def fault_of_zip(file: IO[bytes]) -> str | None:
    """Return why an opened file is not a zip, None if it is one, and rewind the file.

    A truncated zip begins like a zip, but has lost the list of files at its end.
    """
    start = file.read(4)
    is_complete = zipfile.is_zipfile(file)
    file.seek(0)
    if is_complete:
        return None
    if not start:
        return "an empty file"
    if any(mark.startswith(start) for mark in _STARTS):
        return TRUNCATED_ZIP
    return f"another file (it begins with {start!r})"
