"""Exceptions for causes that are the user's. What went wrong on a machine stays an ordinary exception."""


class InputError(ValueError):
    """An input is not what it should be.

    The message is one line that names what was expected, what came, which file, and what to do. The command line
    prints it as it is and exits with code 2; within a stage it becomes the status of one item.
    """


class StoreError(InputError):
    """The store cannot be written to: no permission, no space. It ends a run, for no other item would fare better."""
