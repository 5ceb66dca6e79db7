"""Files to features in Parquet: the reference in one process against ``extract`` with two workers, with start-up.

EfficientNet-B0 has random weights, because speed does not depend on them. ``extract`` computes several copies of a
clip, the reference only one; its time is multiplied.
"""

import contextlib
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import reference_pipeline
from bench_features import check_cosines, faces, random_weights
from clips import open_clips
from pairs import Pair, run_script
from PIL import Image

from data_contracts.store.store import Store
from flows.extract import extract
from models.backbones.network import load_backbone
from models.backbones.registry import get_spec
from tasks.fit.subject_features import find_features, read_features

QUICK = False
_WORKERS = 2
# Random weights exaggerate differences: the 5th percentile is 0.948 with them and was 0.987 with trained weights.
_FOLLOWING_MIN_COSINE = 0.9


def run_extract(
    data: Path, *, backbone: str, weights: Path | None, exact: bool, subject: str | None, source: str | None = None
) -> np.ndarray:
    """Extract into a new store; return the embeddings of one subject, float32 [n, D], without rows that lack a face."""
    with tempfile.TemporaryDirectory() as store, contextlib.redirect_stdout(io.StringIO()):
        extract(
            data=data,
            store=store,
            source=source,
            backbone=backbone,
            weights=str(weights) if weights else None,
            exact=exact,
            workers=_WORKERS,
        )
        variant = find_features(Store(store))
        blocks = list(read_features(Store(store), variant, subject or next(iter(variant.subjects))))
    return np.concatenate([embeddings[has_face] for _, has_face, embeddings, _ in blocks]).astype(np.float32)


def check_followed(min_p5: float, *, max_missing: int) -> Callable[[np.ndarray, np.ndarray], str]:
    """Return a check like ``check_cosines`` for results in which a few first frames of a face may be missing."""

    def compare(expected: np.ndarray, got: np.ndarray) -> str:
        missing = len(expected) - len(got)
        assert 0 <= missing <= max_missing, f"{missing} of {len(expected)} rows are missing"
        # Following misses only the first frames after a face appears.
        return f"{check_cosines(min_p5)(expected[missing:], got)}, {missing} faces missing"

    return compare


def video_pairs(folder: Path, clips: dict[str, Path]) -> Iterator[Pair]:
    """Yield pairs for clips with one and with several faces, with exact and with following detection."""
    goals = {
        ("one face, 360p", "tf_efficientnet_b0", True): 7.0,
        ("one face, 360p", "tf_efficientnet_b0", False): 10.0,
        ("one face, 1080p", "tf_efficientnet_b0", True): 6.0,
        ("one face, 1080p", "tf_efficientnet_b0", False): 11.0,
        ("several faces, 1080p", "tf_efficientnet_b0", True): 6.0,
    }
    for (name, backbone, exact), goal in goals.items():
        copies = 8 if "360p" in name else 4
        videos = folder / f"{name}{copies}"
        videos.mkdir(exist_ok=True)
        for number in range(copies):
            shutil.copy(clips[name], videos / f"clip{number}.mp4")
        weights = None if get_spec(backbone).bundled else folder / f"{backbone}.safetensors"
        network, spec = reference_pipeline.plain_network(load_backbone(backbone, weights=weights)), get_spec(backbone)
        frames = sum(1 for _ in reference_pipeline.decode_frames(clips[name]))

        def run_reference(network: object = network, spec: object = spec, path: Path = clips[name]) -> np.ndarray:
            return reference_pipeline.compute_video_features(path, network, spec, largest_only=True)  # type: ignore[arg-type]

        def ours(
            videos: Path = videos, backbone: str = backbone, weights: Path | None = weights, exact: bool = exact
        ) -> np.ndarray:
            return run_extract(videos, backbone=backbone, weights=weights, exact=exact, subject="clip0")

        follows_one = "several" not in name
        yield Pair(
            f"video to features, {name}, {backbone}, {'exact' if exact else 'following'}",
            run_reference,
            ours,
            check_followed(0.99 if exact else _FOLLOWING_MIN_COSINE, max_missing=7)
            if follows_one
            else lambda a, b: f"{len(a)}, {len(b)} rows",
            goal=goal,
            rounds=1,
            reference_rounds=1,
            reference_scale=copies,
            work=frames * copies,
            unit="frames",
        )


def crop_pairs(folder: Path, *, count: int) -> Iterator[Pair]:
    """Yield the pair for the organisers' crops, JPEG files of 112 x 112 pixels."""
    spec = get_spec("tf_efficientnet_b0")
    weights = folder / f"{spec.name}.safetensors"
    network = reference_pipeline.plain_network(load_backbone(spec.name, weights=weights))
    root = folder / "official" / "cropped"
    subjects, pictures = 4, faces(200)
    for subject in range(subjects):
        (root / f"s{subject}").mkdir(parents=True)
        for number in range(count // subjects):
            path = root / f"s{subject}" / f"{number + 1:05d}.jpg"
            Image.fromarray(pictures[number % len(pictures)]).save(path, quality=90)

    def run_reference() -> np.ndarray:
        files = sorted((root / "s0").glob("*.jpg"))
        return reference_pipeline.compute_features(network, (Image.open(file).convert("RGB") for file in files), spec)

    def ours() -> np.ndarray:
        return run_extract(
            root.parent, backbone=spec.name, weights=weights, exact=False, subject="s0", source="cropped"
        )

    yield Pair(
        f"official crops to features, {spec.name}",
        run_reference,
        ours,
        check_cosines(0.999),
        goal=10.0,
        rounds=1,
        reference_rounds=1,
        reference_scale=subjects,
        work=count,
        unit="crops",
    )


def make_pairs(quick: bool) -> Iterator[Pair]:
    """Yield pairs for videos, then for the organisers' crops."""
    with tempfile.TemporaryDirectory() as scratch, open_clips(frames=240) as clips:
        folder = Path(scratch)
        random_weights("tf_efficientnet_b0", folder)
        yield from video_pairs(folder, clips)
        yield from crop_pairs(folder, count=3000)


if __name__ == "__main__":
    run_script(make_pairs)
