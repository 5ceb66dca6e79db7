"""``affwild2 models``: list backbones, download published weights, and convert them."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from flows.commands.parameters import ConvertModelParameters, FetchModelParameters, ListModelsParameters
from flows.engine.console import print_error, print_line, print_table
from models.backbones.registry import REGISTRY
from models.weight_files.catalogue import CATALOGUE, PublishedWeights, find_published, network_of, published_for
from models.weight_files.licences import COMMERCIAL_MEANING, LICENCES
from tasks.fetch_weights import cache_folder, convert_file, fetch_weights, installed_path


def list_models(parameters: ListModelsParameters) -> int:
    """Print the registry, the other published files, which of them are installed, and what they may be used for."""
    rows: list[list[object]] = []
    for spec in REGISTRY.values():
        published = published_for(spec.name)
        installed = "bundled" if spec.bundled else _is_installed(published) if published else "--weights"
        size = [spec.input_px, spec.embedding_size, len(spec.class_names)]
        rows.append([spec.name, *size, published.accuracy if published else "-", installed])
    header = ["backbone", "px", "features", "classes", "AffectNet 8 / 7", "installed"]
    print_table("Backbones", header, rows)
    print_line("AffectNet 8 / 7: published accuracy with eight and with seven classes, percent")
    print_line("--weights: pass a file with this option. Others: affwild2 models fetch NAME")
    others = [entry for entry in CATALOGUE.values() if not entry.is_convertible]
    rows = [[e.name, e.kind, LICENCES[network_of(e)].commercial, _is_installed(e)] for e in others]
    print_line("")
    print_table("Published files for other programs", ["name", "kind", "commercial use", "installed"], rows)
    print_line("")
    rows = [[name, one.weights, ", ".join(one.data), one.commercial] for name, one in LICENCES.items()]
    print_table("Licences", ["network", "weights", "trained on", "commercial"], rows)
    for answer, meaning in COMMERCIAL_MEANING.items():
        print_line(f"{answer}: {meaning}")
    print_line("sources: docs/backbones.md")
    print_line(f"installed files: {cache_folder()}")
    return 0


def _is_installed(published: PublishedWeights) -> str:
    return "yes" if installed_path(published).exists() else "no"


def fetch_model(parameters: FetchModelParameters) -> int:
    """Download, verify and convert published weights; print their path and how to use them."""
    name = parameters.name
    with _progress(name) as advance:
        path = fetch_weights(name, advance=advance, report=print_error)
    _print_usage(name, path)
    return 0


def convert_model(parameters: ConvertModelParameters) -> int:
    """Convert a file that was downloaded by other means."""
    converted = convert_file(parameters.file, name=parameters.name, out=parameters.out)
    verified = "verified as" if converted.verified else "NOT the published content of"
    print_line(f"{parameters.file}: {verified} {converted.published.name}")
    _print_usage(converted.published.name, converted.path)
    return 0


def _print_usage(name: str, path: Path) -> None:
    print_line(f"{name}: {path}")
    published = find_published(name)
    if published.is_convertible:
        print_line(f"use it: affwild2 extract DATA --store STORE --backbone {published.backbone}")
    commercial = LICENCES[network_of(published)].commercial
    print_line(f"commercial use: {commercial} ({COMMERCIAL_MEANING[commercial]}); see affwild2 models list")


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None]]:
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
