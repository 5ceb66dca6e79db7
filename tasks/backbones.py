"""Choose a backbone: one of the registry, or one that ``pretrain`` wrote into a store; and find its weights."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from data_contracts.errors import InputError
from data_contracts.store.bundles import Bundle, damaged_bundles, list_bundles, match_bundles, read_file
from data_contracts.store.fingerprint import fingerprint, variant_name
from data_contracts.store.store import Store
from data_contracts.vocabulary import Precision
from models.backbones.cpu import is_converted
from models.backbones.registry import REGISTRY, BackboneSpec, get_spec
from models.backbones.weights import spec_of, weights_digest
from tasks.fetch_weights import cache_folder, find_weights

# Raise it if the same crops and weights give other features.
FEATURES_VERSION = 3
# Of a backbone that ``pretrain`` wrote.
WEIGHTS_FILE = "backbone.safetensors"


@dataclass(frozen=True)
class BackboneChoice:
    """A backbone of the registry, the file with its weights (None: bundled), and its precision.

    Processors without bfloat16 compute in float32.
    """

    name: str
    weights: str | None = None
    precision: Precision = "bfloat16"

    @classmethod
    def find(
        cls, name: str, weights: str | Path | None, precision: Precision = "bfloat16", *, store: Store | None = None
    ) -> "BackboneChoice":
        """Return the choice of a backbone of the registry, or of one that ``pretrain`` wrote into the store.

        ``weights``: safetensors file to use instead of the installed weights.

        Raises:
            InputError: unknown backbone, its weights are not installed (the message says how to install them), or the
                file is not a safetensors file.
        """
        if name not in REGISTRY and store is not None:
            bundle = find_trained_backbone(store, name)
            if weights:
                raise InputError(
                    f"--weights {weights}: backbone {bundle.name} has its own weights; leave out --weights"
                )
            choice = cls.trained(store, bundle, precision)
        else:
            file = find_weights(name, str(weights) if weights else None)
            choice = cls(name, os.path.abspath(file) if file else None, precision)
        try:
            weights_digest(choice.name, choice.weights)
            choice.spec  # noqa: B018  # opens the file
        except ValueError as error:
            raise InputError(str(error)) from error
        return choice

    @classmethod
    def trained(cls, store: Store, bundle: Bundle, precision: Precision = "bfloat16") -> "BackboneChoice":
        """Return the choice of a backbone that ``pretrain`` wrote into the store."""
        # Bundles are named by backbone, goal and digits.
        return cls(bundle.name.rsplit("-", 2)[0], _weights_on_this_machine(store, bundle), precision)

    @property
    def input_files(self) -> tuple[str, ...]:
        """The weights file, which workers must have access to; empty for bundled weights."""
        return (self.weights,) if self.weights else ()

    @property
    def spec(self) -> BackboneSpec:
        """The registry's spec, with the fields that the weights file replaces.

        Raises:
            ValueError: unknown backbone, or not a safetensors file.
        """
        return spec_of(self.name, Path(self.weights) if self.weights else None)

    def check(self, store: Store) -> None:
        """Compare names, shapes and values of the weights with the network, unless they have been used before.

        Raises:
            InputError: they do not fit; the message names the tensor.
        """
        if self.weights is None:
            return
        if any(store.manifests(name, backbone=self.variant) for name in ("features", "face_features")):
            return
        if is_converted(self.name, Path(self.weights)):
            return
        # Loading the network takes seconds, most of them for the import of torch.
        from models.backbones.network import load_backbone

        try:
            load_backbone(self.name, weights=Path(self.weights))
        except ValueError as error:
            where = "" if self.weights in str(error) else f"{self.weights}: "
            raise InputError(f"{where}{error}") from error

    def fingerprint(self) -> str:
        """Fingerprint of preprocessing, architecture and weights."""
        digest = weights_digest(self.name, self.weights)
        return fingerprint(spec=get_spec(self.name), weights=digest, precision=self.precision, version=FEATURES_VERSION)

    @property
    def variant(self) -> str:
        """Name of the features variant."""
        return variant_name(self.name, self.fingerprint())


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


def _weights_on_this_machine(store: Store, backbone: Bundle) -> str:
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
