"""Backbones that ``pretrain`` wrote into a store, which ``--backbone`` takes by their names."""

import os
import tempfile

from data_contracts.errors import InputError
from data_contracts.store.bundles import Bundle, damaged_bundles, list_bundles, match_bundles, read_file
from data_contracts.store.store import Store
from models.backbones.registry import REGISTRY
from tasks.fetch_weights import cache_folder

WEIGHTS_FILE = "backbone.safetensors"


def trained_backbones(store: Store, name: str = "") -> list[Bundle]:
    """Return all backbones in a store whose names start with ``name``, by name.

    Raises:
        InputError: one of them is damaged, so that another one would take its place.
    """
    complete = [bundle for bundle in list_bundles(store, "backbones") if WEIGHTS_FILE in bundle.files]
    for damaged in damaged_bundles(store, "backbones", complete):
        if damaged.startswith(name):
            raise InputError(
                f"{store.locate(f'backbones/{damaged}')}: expected the files that pretrain wrote, found missing or "
                "changed ones; run pretrain again, or delete the folder"
            )
    return [bundle for bundle in complete if bundle.name.startswith(name)]


def find_trained_backbone(store: Store, name: str) -> Bundle:
    """Return the backbone in the store with this name, or the only one whose name starts with it.

    Raises:
        InputError: no backbone matches, or several do.
    """
    found = match_bundles(trained_backbones(store, name), name)
    if len(found) == 1:
        return found[0]
    problem = f"several match: {', '.join(b.name for b in found)}" if found else "found none"
    there = ", ".join(store.list_folder("backbones")) or "none"
    raise InputError(
        f"--backbone {name}: expected a name that affwild2 models list shows ({', '.join(REGISTRY)}), or of a backbone "
        f"in {store.url} ({there}), {problem}"
    )


def architecture_of(backbone: Bundle) -> str:
    """Return the name in the registry of the backbone that was trained."""
    # Bundles are named by backbone, goal and digits.
    return backbone.name.rsplit("-", 2)[0]


def weights_on_this_machine(store: Store, backbone: Bundle) -> str:
    """Return the path of the weights: in a local store, or copied from S3 into the cache folder."""
    if store.is_local:
        return os.path.abspath(store.locate(f"{backbone.folder}/{WEIGHTS_FILE}"))
    digest = backbone.files[WEIGHTS_FILE]
    target = cache_folder() / f"{backbone.name}-{digest[:16]}.safetensors"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
            file.write(read_file(store, backbone, WEIGHTS_FILE))
        os.replace(file.name, target)
    return str(target)
