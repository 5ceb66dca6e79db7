"""``affwild2 report``: its option and its help. What it does is in ``report``."""

from typing import Annotated

import typer

from flows.command_ends import guarded


def report(
    store: Annotated[str, typer.Option("--store", help="The store, and where the page is written.")],
) -> None:
    """Write a page about a store: coverage, figures, submissions, failures."""
    from flows.report import write_named

    raise typer.Exit(guarded(lambda: write_named(store)))
