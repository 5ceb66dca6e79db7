"""Backbones that ``pretrain`` wrote into a store, which ``--backbone`` takes by their names."""

import os
import tempfile

from data_contracts.errors import InputError
from data_contracts.store.bundles import Bundle, list_bundles, read_file
from data_contracts.store.store import Store
from models.backbones.registry import REGISTRY
from tasks.fetch_weights import cache_folder

WEIGHTS_FILE = "backbone.safetensors"


def trained_backbones(store: Store) -> list[Bundle]:
    """Return all complete backbones in a store, by name."""
    return [bundle for bundle in list_bundles(store, "backbones") if WEIGHTS_FILE in bundle.files]


def find_trained_backbone(store: Store, name: str) -> Bundle:
    """Return the backbone in the store with this name, or the only one whose name starts with it.

    Raises:
        InputError: no backbone matches, or several do.
    """
    known = trained_backbones(store)
    found = [b for b in known if b.name == name] or [b for b in known if name and b.name.startswith(name)]
    if len(found) == 1:
        return found[0]
    problem = f"several match: {', '.join(b.name for b in found)}" if found else "found none"
    there = ", ".join(b.name for b in known) or "none"
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
