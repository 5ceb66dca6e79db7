"""Exceptions for causes that are the user's. What went wrong on a machine stays an ordinary exception."""


def printable(text: str) -> str:
    """The text on one line, with line feeds, escapes of terminals and undecodable bytes of names written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


class InputError(ValueError):
    """An input is not what it should be.

    The message is one line that names what was expected, what came, which file, and what to do. The command line
    prints it as it is and exits with code 2; within a stage it becomes the status of one item.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class StoreError(InputError):
    """The store cannot be written to: no permission, no space. It ends a run, for no other item would fare better."""
