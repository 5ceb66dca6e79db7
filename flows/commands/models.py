"""``affwild2 models``: list backbones, download published weights, and convert them."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from flows.commands.parameters import ConvertModelParameters, FetchModelParameters, ListModelsParameters
from flows.engine.console import print_error, print_line, print_names, print_result, print_table
from models.backbones.registry import REGISTRY
from models.engines.progress import Countdown, report_progress
from models.weight_files.catalogue import CATALOGUE, PublishedWeights, find_published, network_of, published_for
from models.weight_files.licences import COMMERCIAL_MEANING, LICENCES
from tasks.fetch_weights import cache_folder, convert_file, fetch_weights, installed_path


@dataclass(frozen=True)
class BackboneStatus:
    """A backbone of the registry.

    Attributes:
        name: for ``--backbone``.
        input_px: side of its input.
        embedding_size: number of its features.
        classes: names of its outputs.
        affectnet_accuracy: published accuracy with eight and with seven classes, percent; "-": not published.
        installed: "bundled", "yes", "no", or "--weights": pass a file with this option.
    """

    name: str
    input_px: int
    embedding_size: int
    classes: list[str]
    affectnet_accuracy: str
    installed: str


@dataclass(frozen=True)
class PublishedFile:
    """A published file for other programs. ``commercial_use``: "no", "ask" or "see file"."""

    name: str
    kind: str
    commercial_use: str
    installed: str


@dataclass(frozen=True)
class NetworkLicence:
    """Licence of the weights of a network, the collections that it was trained on, and its commercial use."""

    network: str
    weights: str
    trained_on: list[str]
    commercial_use: str


@dataclass(frozen=True)
class ModelList:
    """The backbones, the other published files, and their licences. ``folder``: where installed files are."""

    command: ClassVar[str] = "models list"
    backbones: list[BackboneStatus]
    published: list[PublishedFile]
    licences: list[NetworkLicence]
    folder: str


def read_models() -> ModelList:
    """Return the registry, the other published files, which of them are installed, and their licences."""
    backbones = []
    for spec in REGISTRY.values():
        published = published_for(spec.name)
        installed = "bundled" if spec.bundled else _is_installed(published) if published else "--weights"
        accuracy = published.accuracy if published else "-"
        size = spec.input_px, spec.embedding_size, list(spec.class_names)
        backbones.append(BackboneStatus(spec.name, *size, accuracy, installed))
    others = [entry for entry in CATALOGUE.values() if not entry.is_convertible]
    files = [PublishedFile(e.name, e.kind, LICENCES[network_of(e)].commercial, _is_installed(e)) for e in others]
    licences = [NetworkLicence(name, one.weights, list(one.data), one.commercial) for name, one in LICENCES.items()]
    return ModelList(backbones, files, licences, str(cache_folder()))


def list_models(parameters: ListModelsParameters) -> int:
    """Print the backbones, the other published files, which of them are installed, and what they may be used for."""
    models = read_models()
    if print_result(models) or print_names(one.name for one in models.backbones):
        return 0
    rows: list[list[object]] = [
        [b.name, b.input_px, b.embedding_size, len(b.classes), b.affectnet_accuracy, b.installed]
        for b in models.backbones
    ]
    header = ["backbone", "px", "features", "classes", "AffectNet 8 / 7", "installed"]
    print_table("Backbones", header, rows)
    print_line("AffectNet 8 / 7: published accuracy with eight and with seven classes, percent")
    print_line("--weights: pass a file with this option. Others: affwild2 models fetch NAME")
    rows = [[one.name, one.kind, one.commercial_use, one.installed] for one in models.published]
    print_line("")
    print_table("Published files for other programs", ["name", "kind", "commercial use", "installed"], rows)
    print_line("")
    rows = [[one.network, one.weights, ", ".join(one.trained_on), one.commercial_use] for one in models.licences]
    print_table("Licences", ["network", "weights", "trained on", "commercial"], rows)
    for answer, meaning in COMMERCIAL_MEANING.items():
        print_line(f"{answer}: {meaning}")
    print_line("sources: docs/backbones.md")
    print_line(f"installed files: {models.folder}")
    return 0


def _is_installed(published: PublishedWeights) -> str:
    return "yes" if installed_path(published).exists() else "no"


def fetch_model(parameters: FetchModelParameters) -> int:
    """Download, verify and convert published weights; print their path and how to use them."""
    name = parameters.name
    count = Countdown(f"downloading {name}: {{}} MB")

    def advance(done_bytes: int, total_bytes: int) -> None:
        count.done, count.total = done_bytes / 1e6, total_bytes / 1e6
        report_progress("{}", count)

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
    print_line(f"{name}: {path}", is_result=True)
    published = find_published(name)
    if published.is_convertible:
        print_line(f"use it: affwild2 extract DATA --store STORE --backbone {published.backbone}")
    commercial = LICENCES[network_of(published)].commercial
    print_line(f"commercial use: {commercial} ({COMMERCIAL_MEANING[commercial]}); see affwild2 models list")
