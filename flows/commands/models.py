"""``affwild2 models``: list backbones, download published weights, and convert them."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from flows.commands.parameters import ConvertModelParameters, FetchModelParameters, ListModelsParameters
from flows.engine.console import print_line, print_table
from models.backbones.registry import REGISTRY
from models.weight_files.catalogue import CATALOGUE, LICENCE, ORIGIN, published_for
from tasks.fetch_weights import convert_file, fetch_weights, installed_path


def list_models(parameters: ListModelsParameters) -> int:
    """Print the registry and the other published files, and which of them are installed."""
    rows = []
    for spec in REGISTRY.values():
        published = published_for(spec.name)
        place = installed_path(published) if published else None
        installed = "bundled" if spec.bundled else str(place) if place and place.exists() else "no"
        source = published.name if published else "bundled" if spec.bundled else "--weights FILE"
        accuracy = published.accuracy if published else ""
        classes = ", ".join(spec.class_names) if len(spec.class_names) <= 3 else str(len(spec.class_names))
        rows.append(
            [spec.name, spec.architecture, spec.input_px, spec.embedding_size, classes, source, accuracy, installed]
        )
    header = [
        "backbone",
        "architecture",
        "input px",
        "features",
        "classes",
        "weights",
        "AffectNet accuracy",
        "installed",
    ]
    print_table("Backbones", header, rows)
    others = [entry for entry in CATALOGUE.values() if not entry.is_convertible]
    places = [(entry, installed_path(entry)) for entry in others]
    print_table(
        "Published files for other programs",
        ["name", "kind", "git blob id", "installed"],
        [[e.name, e.kind, e.blob_id, str(place) if place.exists() else "no"] for e, place in places],
    )
    print_line(f"published weights: github.com/{ORIGIN} ({LICENCE}); get one with affwild2 models fetch NAME")
    return 0


def fetch_model(parameters: FetchModelParameters) -> int:
    """Download, verify and convert published weights; print their path and how to use them."""
    name = parameters.name
    with _progress(name) as advance:
        path = fetch_weights(name, advance=advance)
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
    backbone = CATALOGUE[name].backbone
    if CATALOGUE[name].is_convertible:
        print_line(f"use it: affwild2 extract DATA --store STORE --backbone {backbone}")


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None]]:
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
