"""The group ``affwild2 models``: list, fetch, convert and export backbones. Imports are inside the commands."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.ends import guarded

models_app = typer.Typer(help="Backbones: list them, get published weights, convert, export.", no_args_is_help=True)


@models_app.command("list")
def list_models() -> None:
    """Which backbones there are, and which are installed."""
    from flows.commands import backbone_files

    raise typer.Exit(guarded(backbone_files.list_models))


@models_app.command("fetch")
def fetch_model(name: Annotated[str, typer.Argument(help="Name of published weights.")]) -> None:
    """Download published weights, verify and convert them."""
    from flows.commands import backbone_files

    raise typer.Exit(guarded(lambda: backbone_files.fetch_model(name)))


@models_app.command("convert")
def convert_model(
    file: Annotated[Path, typer.Argument(help="A published file, got by other means.")],
    name: Annotated[str | None, typer.Option("--name", help="Which it is, if its content is not known.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Safetensors file to write; default: the cache.")] = None,
) -> None:
    """Convert published weights, without running anything in the file."""
    from flows.commands import backbone_files

    raise typer.Exit(guarded(lambda: backbone_files.convert_model(file, name=name, out=out)))


@models_app.command("export")
def export_model(
    name: Annotated[str, typer.Argument(help="Name in the registry.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the files.")],
    file_format: Annotated[
        list[str] | None, typer.Option("--format", help="onnx, onnx-int8, openvino; several, or all if not given.")
    ] = None,
    weights: Annotated[Path | None, typer.Option("--weights", help="A safetensors file.")] = None,
    pictures: Annotated[
        Path | None, typer.Option("--pictures", help="Folder of faces to calibrate and compare.")
    ] = None,
) -> None:
    """Write a backbone for devices, and compare it with the original."""
    from flows.commands.export_backbone import export_models

    raise typer.Exit(
        guarded(lambda: export_models(name, formats=file_format or [], out=out, weights=weights, pictures=pictures))
    )
