"""What a store holds, as manifests and notes of failures tell: for ``affwild2 status`` and the report page."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from data_contracts.errors import InputError
from data_contracts.store.bundles import Bundle, list_bundles, read_manifest
from data_contracts.store.manifest import Failure, Manifest, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND, NO_FACE, NOT_DECODED, UNREADABLE_CROP

DATASETS = ("videos", "frames", "faces", "subjects", "features", "labels", "outputs", "pictures")
BUNDLES = ("heads", "postprocessing", "submissions")
# Pages of reports are reports/NAME/index.html.
REPORT_PAGE = "index.html"
_VARIANT_KEYS = ("source", "backbone", "head", "task")


@dataclass(frozen=True)
class VariantContents:
    """One dataset in one setting; ``seconds``: what its units took to make, all together."""

    dataset: str
    variant: str
    units: int
    rows: int
    size_bytes: int
    seconds: float
    failed: int


@dataclass(frozen=True)
class FacesOfVideo:
    """What was found in a video (or among the organisers' crops of a subject), as far as its segments are done.

    ``frames``: of the video, None where none was counted; the others count rows: a frame may show several faces.
    """

    name: str
    source: str
    frames: int | None
    faces: int
    frames_without_face: int
    unusable: int


@dataclass(frozen=True)
class FeaturesOfSubject:
    """Frames of a subject that have features; ``heads``: how many have predicted them."""

    subject: str
    source: str
    backbone: str
    frames: int
    with_face: int
    heads: int


@dataclass(frozen=True)
class StoreContents:
    """All of it. Bundles are whole ones; backbones, which are large, are taken by the word of their manifests."""

    manifests: dict[UnitKey, Manifest]
    failures: dict[UnitKey, Failure]
    bundles: dict[str, list[Bundle]]
    backbones: list[Bundle]

    @property
    def problems(self) -> list[tuple[UnitKey, str]]:
        """What of the inputs was lost, while the rest of them was used."""
        return [(key, line) for key, m in self.manifests.items() for line in m.details.get("problems", ())]

    def variants(self) -> list[VariantContents]:
        """Per dataset and variant, in the order of the stages."""
        units: dict[tuple[str, str], list[Manifest]] = defaultdict(list)
        for key, manifest in self.manifests.items():
            units[key.dataset, _variant(key)].append(manifest)
        failed = Counter((key.dataset, _variant(key)) for key in self.failures)
        found = sorted({*units, *failed}, key=lambda one: (DATASETS.index(one[0]), one[1]))
        return [_variant_contents(*one, units[one], failed[one]) for one in found]

    def faces(self) -> list[FacesOfVideo]:
        """Per video and source, by name; videos of which no face was looked for yet have no source."""
        frames = {key.value("video"): m.details["frame_count"] for key, m in self._of("videos")}
        counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for key, manifest in self._of("faces"):
            counts[key.value("video"), key.value("source")].update(manifest.counts)
        looked_in = {name for name, _ in counts}
        pairs = sorted([*counts, *((name, "") for name in frames if name not in looked_in)])
        return [_faces_of_video(*pair, frames.get(pair[0]), counts[pair]) for pair in pairs]

    def features(self) -> list[FeaturesOfSubject]:
        """Per subject, source and backbone, by name."""
        counts: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
        for key, manifest in self._of("features"):
            counts[key.value("subject"), key.value("source"), key.value("backbone")].update(manifest.counts)
        backbones = {head.name: head.details["backbone"] for head in self.bundles["heads"]}
        heads = Counter(
            (key.value("subject"), key.value("source"), backbones.get(key.value("head")))
            for key, _ in self._of("outputs")
        )
        return [
            FeaturesOfSubject(*one, frames=found.total(), with_face=found[FACE_FOUND], heads=heads[one])
            for one, found in sorted(counts.items())
        ]

    def _of(self, dataset: str) -> Iterable[tuple[UnitKey, Manifest]]:
        return ((key, manifest) for key, manifest in self.manifests.items() if key.dataset == dataset)


def read_contents(store: Store) -> StoreContents:
    """List what there is; on S3, datasets are listed side by side.

    Raises:
        InputError: there is no store at the URL.
    """
    names = set(store.list_folder(""))
    if not names & {*DATASETS, *BUNDLES}:
        raise InputError(f"{store.url}: expected a store of affwild2, found none; run affwild2 extract first")
    trained = (read_manifest(store, f"backbones/{name}") for name in store.list_folder("backbones"))
    if store.is_local:
        found = [store.contents(name) for name in DATASETS]
    else:
        with ThreadPoolExecutor(len(DATASETS)) as pool:
            found = list(pool.map(store.contents, DATASETS))
    return StoreContents(
        manifests={key: manifest for manifests, _ in found for key, manifest in manifests.items()},
        failures={key: note for _, failures in found for key, note in failures.items()},
        bundles={kind: list_bundles(store, kind) for kind in BUNDLES},
        backbones=[bundle for bundle in trained if bundle],
    )


def _variant(key: UnitKey) -> str:
    return " ".join(value for name, value in key.partitions if name in _VARIANT_KEYS)


def _variant_contents(dataset: str, variant: str, units: list[Manifest], failed: int) -> VariantContents:
    return VariantContents(
        dataset,
        variant,
        units=len(units),
        rows=sum(m.rows for m in units),
        size_bytes=sum(m.part_bytes for m in units),
        seconds=sum(m.seconds for m in units),
        failed=failed,
    )


def _faces_of_video(name: str, source: str, frames: int | None, counts: Counter[str]) -> FacesOfVideo:
    unusable = counts[NOT_DECODED] + counts[UNREADABLE_CROP]
    return FacesOfVideo(name, source, frames, counts[FACE_FOUND], counts[NO_FACE], unusable)
