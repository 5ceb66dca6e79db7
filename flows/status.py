"""What a store holds: per stage and variant, what is ready and what failed."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from data_contracts.bundles import list_bundles
from data_contracts.errors import InputError
from data_contracts.manifest import Failure, Manifest, UnitKey
from data_contracts.store import Store
from flows.console import print_line, print_table
from tasks.units import MAX_TRIES

_DATASETS = ("videos", "frames", "faces", "subjects", "features", "labels", "outputs", "pictures")
_BUNDLES = ("heads", "postprocessing", "submissions")
_VARIANT_KEYS = ("source", "backbone", "head", "task")


def print_status(store_url: str) -> int:
    """Print what is ready and what failed; 1 if anything failed.

    Raises:
        InputError: there is no store at the URL.
    """
    store = Store(store_url)
    names = set(store.list_folder(""))
    if not names & {*_DATASETS, *_BUNDLES}:
        raise InputError(f"{store_url}: expected a store of affwild2, found none; run affwild2 extract first")
    manifests, failures = _contents(store)
    print_table(
        f"Store {store_url}",
        ["dataset", "variant", "units", "rows", "MB", "failed"],
        [row for name in _DATASETS for row in _dataset_rows(manifests, name, failures)],
    )
    for kind in _BUNDLES:
        for bundle in list_bundles(store, kind):
            print_line(f"{kind}: {bundle.name}")
    for key, note in failures.items():
        what = "failed" if note.tries < MAX_TRIES else f"quarantined (failed {note.tries} times)"
        print_line(f"{what}: {key.dataset} {key}: {note.cause}")
    problems = [(key, line) for key, m in manifests.items() for line in m.details.get("problems", ())]
    for key, line in problems:
        print_line(f"in part: {key.dataset} {key}: {line}")
    return 1 if failures or problems else 0


def _contents(store: Store) -> tuple[dict[UnitKey, Manifest], dict[UnitKey, Failure]]:
    """Everything in all datasets; on S3, these are listed side by side."""
    if store.is_local:
        found = [store.contents(name) for name in _DATASETS]
    else:
        with ThreadPoolExecutor(len(_DATASETS)) as pool:
            found = list(pool.map(store.contents, _DATASETS))
    manifests = {key: manifest for both in found for key, manifest in both[0].items()}
    return manifests, {key: note for both in found for key, note in both[1].items()}


def _dataset_rows(
    manifests: dict[UnitKey, Manifest], name: str, failures: dict[UnitKey, Failure]
) -> list[list[object]]:
    units, rows, size, failed = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for key, manifest in manifests.items():
        if key.dataset != name:
            continue
        variant = _variant(key)
        units[variant] += 1
        rows[variant] += manifest.rows
        size[variant] += manifest.part_bytes
    failed.update(_variant(key) for key in failures if key.dataset == name)
    variants = sorted({*units, *failed})
    return [[name, v, units[v], rows[v], round(size[v] / 1e6, 1), failed[v]] for v in variants]


def _variant(key: UnitKey) -> str:
    return " ".join(value for name, value in key.partitions if name in _VARIANT_KEYS)
