"""The group ``affwild2 download``. Imports are inside the commands."""

from typing import Annotated

import typer

from flows.commands.ends import guarded

download_app = typer.Typer(help="Get results from a store, on whatever machine it is.", no_args_is_help=True)


@download_app.callback()
def _group() -> None:
    """Get results from a store, on whatever machine it is."""


@download_app.command("submission")
def download_submission(
    store: Annotated[str, typer.Option("--store", help="Where it lies: a path, file:// or s3:// URL.")],
    run: Annotated[str, typer.Option("--run", help="Name of a submission, or its beginning; or latest.")] = "latest",
    to: Annotated[str, typer.Option("--to", help="Folder to put the zip into.")] = ".",
) -> None:
    """Fetch the zip of a submission and check that it is whole."""
    from flows.commands import download

    def fetch() -> int:
        download.download_submission(store, run=run, to=to)
        return 0

    raise typer.Exit(guarded(fetch))
