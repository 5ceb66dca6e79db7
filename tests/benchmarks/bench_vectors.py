"""Features in the store against the published notebook's format: a pickled dict of float32 arrays, one per frame."""

import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pairs import Pair, run_script

from data_contracts.schemas.features import features_dataset
from data_contracts.store.manifest import Manifest, StoredUnit, UnitKey
from data_contracts.store.store import Store
from tasks.extract.embed_faces import features_table
from tasks.fit.subject_features import FeaturesVariant, read_features

ROWS, WIDTH, CLASSES, SUBJECT_ROWS = 100_000, 1280, tuple("abcdefgh"), 1000
BATCH = 64  # frames per table that ``embed_faces`` writes
DATASET = features_dataset(WIDTH, CLASSES)


def write_pickle(path: Path, embeddings: np.ndarray, logits: np.ndarray) -> None:
    found = {f"{row:05d}.jpg": (embeddings[row], logits[row]) for row in range(len(embeddings))}
    with path.open("wb") as file:
        pickle.dump(found, file)


def read_pickle(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with path.open("rb") as file:
        found = pickle.load(file)
    return np.array([pair[0] for pair in found.values()]), np.array([pair[1] for pair in found.values()])


def write_store(store: Store, subject: str, embeddings: np.ndarray, logits: np.ndarray) -> FeaturesVariant:
    key = UnitKey("features", (("backbone", "b"), ("source", "s"), ("subject", subject)))
    tables = (
        features_table(
            DATASET,
            np.arange(first + 1, min(first + BATCH, len(embeddings)) + 1),
            np.ones(min(BATCH, len(embeddings) - first), bool),
            embeddings[first : first + BATCH],
            logits[first : first + BATCH],
        )
        for first in range(0, len(embeddings), BATCH)
    )
    manifest = Manifest("f" * 64, "f" * 64, *store.write_unit(key, DATASET, tables, fingerprint="f" * 64))
    store.finish_unit(key, manifest)
    return FeaturesVariant("b", "s", {subject: [StoredUnit(key, manifest)]})


def read_store(store: Store, variant: FeaturesVariant, rows: int) -> tuple[np.ndarray, np.ndarray]:
    embeddings, logits = np.empty((rows, WIDTH), np.float16), np.empty((rows, len(CLASSES)), np.float32)
    (subject,) = variant.subjects
    for frame, _, block, block_logits in read_features(store, variant, subject):
        embeddings[frame - 1], logits[frame - 1] = block, block_logits
    return embeddings, logits


def check_same_features(expected: tuple, got: tuple) -> str:
    assert all((np.asarray(a, b.dtype) == b).all() for a, b in zip(expected, got, strict=True)), "values differ"
    return "identical after rounding to float16"


def make_pairs(quick: bool) -> Iterator[Pair]:
    """Yield pairs for writing, reading everything, and reading one subject."""
    rows = 10_000 if quick else ROWS
    random = np.random.default_rng(0)
    embeddings = (2 * random.random((rows, WIDTH), np.float32)).astype(np.float16)
    whole, logits = embeddings.astype(np.float32), random.random((rows, len(CLASSES)), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path, store = Path(folder, "features.pickle"), Store(Path(folder, "store"))
        few = write_store(store, "few", embeddings[:SUBJECT_ROWS], logits[:SUBJECT_ROWS])
        many = write_store(store, "many", embeddings, logits)
        write_pickle(path, whole, logits)

        def check_size(_: None, variant: FeaturesVariant) -> str:
            ours = sum(manifest.part_bytes for parts in variant.subjects.values() for _, manifest in parts)
            assert ours < 0.55 * path.stat().st_size
            return f"{ours / rows:,.0f} bytes per row, pickle {path.stat().st_size / rows:,.0f}"

        yield Pair(
            f"writing features, {rows:,} x {WIDTH}, pickled dict of float32 arrays",
            lambda: write_pickle(path, whole, logits),
            lambda: write_store(store, "many", embeddings, logits),
            check_size,
            goal=2,
            rounds=3,
            work=rows,
            unit="rows",
        )
        yield Pair(
            f"reading features, {rows:,} x {WIDTH}, pickled dict of float32 arrays",
            lambda: read_pickle(path),
            lambda: read_store(store, many, rows),
            check_same_features,
            goal=2,
            work=rows,
            unit="rows",
        )
        yield Pair(
            f"reading one subject of {SUBJECT_ROWS:,} frames, against the whole pickle of {rows:,}",
            lambda: tuple(values[:SUBJECT_ROWS] for values in read_pickle(path)),
            lambda: read_store(store, few, SUBJECT_ROWS),
            check_same_features,
            work=SUBJECT_ROWS,
            unit="rows",
        )


if __name__ == "__main__":
    run_script(make_pairs)
