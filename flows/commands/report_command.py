"""``affwild2 report``: its option and its help. What it does is in ``report``."""

from typing import Annotated

import typer

from flows.commands.ends import guarded


def report(
    store: Annotated[str, typer.Option("--store", help="The store, and where the page is written.")],
) -> None:
    """The same and all figures, as a page of HTML."""
    from flows.commands.report import write_named

    raise typer.Exit(guarded(lambda: write_named(store)))
