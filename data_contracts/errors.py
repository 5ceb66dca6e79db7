"""Exceptions for problems that the user can solve. Other failures remain ordinary exceptions."""


def printable(text: str) -> str:
    """Return the text on one line: line feeds, terminal escapes and undecodable bytes become escape sequences."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


class InputError(ValueError):
    """An invalid input.

    The message is one line: which file, what was expected, what was found, and what to do. The command line prints it
    and exits with code 2. Within a stage it becomes the failure of one unit.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class StoreError(InputError):
    """The store cannot be used, for example no permission or no space. Ends the run, because every unit would fail."""
