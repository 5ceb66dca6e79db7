"""Names that lead out of a store are refused where names become paths, whatever file they were read from."""

from data_contracts.errors import InputError


def within(path: str) -> str:
    """The path, relative to a store, as it is.

    Raises:
        InputError: it leads out of the store, or is none that a disk can have.
    """
    if path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise InputError(f"store: expected a name within it, got {path[:200]!r}; remove the file that holds this name")
    return path
