"""What a store holds, read from its manifests and failure notes, for ``affwild2 status`` and the report."""

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.details.datasets import VideoDetails
from data_contracts.details.heads import HeadDetails
from data_contracts.errors import InputError
from data_contracts.store.bundles import Bundle, list_bundles, read_manifest
from data_contracts.store.input_accounts import INPUTS, InputsDetails
from data_contracts.store.manifest import Failure, UnitKey, key_of_folder, key_of_manifest_path
from data_contracts.store.store import Store
from data_contracts.vocabulary import (
    FACE_FOUND,
    NO_FACE,
    NOT_DECODED,
    STORE_FILE,
    UNREADABLE_CROP,
    is_simulated,
)

DATASETS = (
    "videos",
    "frames",
    "faces",
    "face_features",
    "subjects",
    "features",
    "other_features",
    "persons",
    "labels",
    "outputs",
    "person_outputs",
    "pictures",
    "image_faces",
    "image_features",
    "image_outputs",
)
_BY_BACKBONE = ("features", "face_features")
BUNDLES = ("heads", "postprocessing", "submissions")
# Pages of reports are reports/NAME/index.html.
REPORT_PAGE = "index.html"
# Viewers of videos are reports/viewers/VIDEO/index.html, some with a copy of the video beside it.
VIEWERS = "reports/viewers"


def comparison_name(a: str, b: str) -> str:
    """Return the name of the report that compares two heads."""
    return f"compare-{a}-{b}"


def is_comparison_of(report: str, head: str) -> bool:
    """Return whether a report compares a head with another one."""
    return report.startswith(comparison_name(head, "")) or (
        report.startswith("compare-") and report.endswith(f"-{head}")
    )


@dataclass(frozen=True)
class VariantContents:
    """One variant of a dataset.

    Attributes:
        seconds: total time that its units took to compute.
        is_simulated: its folder or its manifests name a simulated backbone.
    """

    dataset: str
    variant: str
    units: int
    rows: int
    size_bytes: int
    seconds: float
    failed: int
    is_simulated: bool


@dataclass(frozen=True)
class FacesOfVideo:
    """Faces that were found in a video, or among the official crops of a subject, in the segments that are done.

    ``frames`` is the number of frames of the video, None if it is unknown. The other numbers count rows: a frame may
    show several faces.
    """

    name: str
    source: str
    frames: int | None
    faces: int
    frames_without_face: int
    unusable: int


@dataclass(frozen=True)
class FeaturesOfSubject:
    """Frames of a subject that have features. ``heads``: number of heads that have predicted them."""

    subject: str
    source: str
    backbone: str
    frames: int
    with_face: int
    heads: int


@dataclass(frozen=True)
class StoreContents:
    """Everything that a store holds.

    Attributes:
        variants: per dataset and variant, in the order of the stages.
        failures: notes of the units whose last try failed.
        problems: (unit, line) for each input that could be used only in part.
        bundles: complete bundles by kind.
        backbones: trained backbones; their large files are not checked.
        inputs: what the last run on each folder found, used and skipped.
        coverage: rows per status of each video and subject; empty unless it was requested.
    """

    variants: list[VariantContents]
    failures: dict[UnitKey, Failure]
    problems: list[tuple[UnitKey, str]]
    bundles: dict[str, list[Bundle]]
    backbones: list[Bundle]
    inputs: list[InputsDetails]
    coverage: "Coverage"

    @property
    def is_simulated(self) -> bool:
        """Return whether all features and heads are simulated, and there are some."""
        features = [v.is_simulated for v in self.variants if v.dataset in _BY_BACKBONE]
        heads = [HeadDetails.of(head).is_simulated for head in self.bundles["heads"]]
        return bool(features or heads) and all([*features, *heads])

    @property
    def simulated(self) -> list[str]:
        """Names of simulated features variants and heads."""
        features = {v.variant.split(" ")[0] for v in self.variants if v.dataset in _BY_BACKBONE and v.is_simulated}
        heads = {head.name for head in self.bundles["heads"] if HeadDetails.of(head).is_simulated}
        return sorted({*features, *heads})


@dataclass(frozen=True)
class Coverage:
    """Rows per status of each video and subject.

    Attributes:
        frames: video -> number of frames.
        faces: (video, source) -> rows of ``faces`` per status.
        features: (subject, source, backbone) -> rows of ``features`` per status.
        outputs: (subject, source, head) of all units of ``outputs``, and (video, source, head) of ``person_outputs``.
    """

    frames: dict[str, int] = field(default_factory=dict)
    faces: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    features: dict[tuple[str, str, str], Counter[str]] = field(default_factory=dict)
    outputs: list[tuple[str, str, str]] = field(default_factory=list)

    def faces_of_videos(self) -> list[FacesOfVideo]:
        """Return one entry per video and source, by name; the source is empty if no faces were detected yet."""
        searched = {name for name, _ in self.faces}
        pairs = sorted([*self.faces, *((name, "") for name in self.frames if name not in searched)])
        found = []
        for name, source in pairs:
            counts = self.faces.get((name, source), Counter())
            unusable = counts[NOT_DECODED] + counts[UNREADABLE_CROP]
            numbers = counts[FACE_FOUND], counts[NO_FACE], unusable
            found.append(FacesOfVideo(name, source, self.frames.get(name), *numbers))
        return found

    def features_of_subjects(self, heads: Sequence[Bundle]) -> list[FeaturesOfSubject]:
        """Return one entry per subject, source and backbone, by name."""
        backbones = {head.name: HeadDetails.of(head).backbone for head in heads}
        predicted = Counter((subject, source, backbones.get(head)) for subject, source, head in set(self.outputs))
        return [
            FeaturesOfSubject(*key, frames=counts.total(), with_face=counts[FACE_FOUND], heads=predicted[key])
            for key, counts in sorted(self.features.items())
        ]


def require_store(store: Store) -> None:
    """Check that there is a store, before a run that only reads what others have computed creates an empty one.

    Raises:
        InputError: there is no store at the URL.
    """
    if store.is_local and os.path.isfile(store.root):
        raise InputError(f"{store.root}: expected the folder of a store, got a file; pass the folder")
    names = set(store.list_folder(""))
    if not names & {*DATASETS, *BUNDLES, "backbones", INPUTS, STORE_FILE}:
        what = "an empty folder" if not names else f"a folder with {', '.join(sorted(names)[:3])}"
        got = what if names or store.exists("") else "nothing there"
        raise InputError(
            f"{store.url}: expected a store of affwild2, found {got}; check --store, or run affwild2 extract first"
        )


def read_contents(store: Store, *, with_coverage: bool = False) -> StoreContents:
    """Read what a store holds. On S3, datasets are listed in parallel.

    Raises:
        InputError: there is no store at the URL.
    """
    require_store(store)
    trained = (read_manifest(store, f"backbones/{name}") for name in store.list_folder("backbones"))
    coverage = Coverage()

    def read(dataset: str) -> list[tuple[UnitKey, _Variant]]:
        return _read_variants(store, dataset, coverage if with_coverage else None)

    if store.is_local:
        found = [read(name) for name in DATASETS]
    else:
        with ThreadPoolExecutor(len(DATASETS)) as pool:
            found = list(pool.map(read, DATASETS))
    variants = list(itertools.chain.from_iterable(found))
    return StoreContents(
        variants=[variant.to_contents(key) for key, variant in variants if variant.units or variant.failures],
        failures=dict(sorted(note for _, variant in variants for note in variant.failures.items())),
        problems=[problem for _, variant in variants for problem in sorted(variant.problems)],
        bundles={kind: list_bundles(store, kind) for kind in BUNDLES},
        backbones=[bundle for bundle in trained if bundle],
        inputs=[InputsDetails.of(bundle) for bundle in list_bundles(store, INPUTS)],
        coverage=coverage,
    )


@dataclass
class _Variant:
    """Sums over the units of a variant."""

    units: int = 0
    rows: int = 0
    size_bytes: int = 0
    seconds: float = 0.0
    failures: dict[UnitKey, Failure] = field(default_factory=dict)
    problems: list[tuple[UnitKey, str]] = field(default_factory=list)
    backbone_name: str = ""

    def to_contents(self, key: UnitKey) -> VariantContents:
        name = " ".join(value for _, value in key.partitions)
        numbers = self.units, self.rows, self.size_bytes, self.seconds, len(self.failures)
        return VariantContents(key.dataset, name, *numbers, is_simulated(name) or is_simulated(self.backbone_name))


def _read_variants(store: Store, dataset: str, coverage: Coverage | None) -> list[tuple[UnitKey, _Variant]]:
    """Read the variants of a dataset block by block: an object per unit would fill the memory."""
    columns = ["path", "part_bytes", "rows", "seconds", "problems"]
    if coverage is not None:
        columns += ["details"] if dataset == "videos" else ["counts"]
    if dataset in _BY_BACKBONE:
        columns.append("details")
    found: dict[str, _Variant] = {}
    for block, table in store.index.read_tables(dataset, columns):
        variant = found.setdefault(block.variant, _Variant())
        variant.units += table.num_rows
        variant.rows += pc.sum(table["rows"]).as_py() or 0
        variant.size_bytes += pc.sum(table["part_bytes"]).as_py() or 0
        variant.seconds += pc.sum(table["seconds"]).as_py() or 0.0
        variant.failures |= store.read_failures(block.failures)
        variant.problems += _problems_of(table)
        if dataset in _BY_BACKBONE and table.num_rows and not variant.backbone_name:
            # All units of a variant are of one backbone, and a renamed folder does not hide it.
            variant.backbone_name = json.loads(table["details"][0].as_py()).get("backbone_name", "")
        if coverage is not None:
            _add_coverage(coverage, dataset, table)
    return [(key_of_folder(folder), variant) for folder, variant in sorted(found.items())]


def _problems_of(table: pa.Table) -> Iterator[tuple[UnitKey, str]]:
    rows = table.filter(pc.is_valid(table["problems"]))
    for path, text in zip(rows["path"].to_pylist(), rows["problems"].to_pylist(), strict=True):
        key = key_of_manifest_path(path)
        if key is not None:
            yield from ((key, line) for line in json.loads(text))


def _add_coverage(coverage: Coverage, dataset: str, table: pa.Table) -> None:
    if dataset == "videos":
        for path, details in zip(table["path"].to_pylist(), table["details"].to_pylist(), strict=True):
            key = key_of_folder(path.rpartition("/")[0])
            coverage.frames[key.value("video")] = VideoDetails.from_json(json.loads(details)).frame_count
    elif dataset in ("faces", "features", "outputs", "person_outputs"):
        folders = pc.replace_substring_regex(table["path"], "/[^/]*$", "")
        units = pa.table({"folder": folders, "counts": table["counts"]})
        grouped = units.group_by(["folder", "counts"]).aggregate([([], "count_all")])
        for row in grouped.to_pylist():
            key = key_of_folder(row["folder"])
            counts = Counter({status: n * row["count_all"] for status, n in json.loads(row["counts"]).items()})
            if dataset == "faces":
                coverage.faces.setdefault((key.value("video"), key.value("source")), Counter()).update(counts)
            elif dataset == "features":
                name = key.value("subject"), key.value("source"), key.value("backbone")
                coverage.features.setdefault(name, Counter()).update(counts)
            else:
                name = key.item, key.value("source"), key.value("head")
                coverage.outputs.extend([name] * row["count_all"])
