"""Tables of a page: captions, headers, and cells of several kinds. ``page.html.jinja`` determines their appearance."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

# Browsers are slow with longer tables. The datasets contain all rows.
_MOST_ROWS = 2_000


class Share(NamedTuple):
    """A cell with a fraction in 0..1, also shown as a bar; None: undefined."""

    value: float | None


class Heat(NamedTuple):
    """A cell with a fraction in 0..1 as a colour and in percent, and the number of rows behind it; None: undefined."""

    value: float | None
    rows: int


class Tenths(NamedTuple):
    """A cell with a number that is rounded to one decimal."""

    value: float


class Code(NamedTuple):
    """A cell with a name or a digest."""

    text: str


class Link(NamedTuple):
    """A cell with a link to a file of the store."""

    text: str
    target: str


class State(NamedTuple):
    """A cell with a state, which is good or bad."""

    text: str
    good: bool


@dataclass(frozen=True)
class Table:
    """A table of the page. ``folded``: it is shown when the reader opens it. ``notes``: lines below it."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    empty: str = ""
    folded: bool = False
    notes: Sequence[str] = ()
    shown: int = field(init=False, default=_MOST_ROWS)

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers."""
        columns = zip(*self.rows, strict=True)
        return [any(isinstance(cell, int | float | Share | Heat | Tenths) for cell in column) for column in columns]
