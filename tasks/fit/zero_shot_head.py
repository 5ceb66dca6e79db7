"""The head that ``score`` uses where none was fitted: the expression classes of the backbone itself."""

from dataclasses import asdict
from typing import Any

from data_contracts.errors import InputError
from data_contracts.store.bundles import Bundle, find_bundle, write_bundle
from data_contracts.store.fingerprint import fingerprint, variant_name
from data_contracts.store.store import Store
from models.backbones.registry import get_spec
from models.heads.head import head_to_bytes
from models.heads.mlp import zero_shot_head
from tasks.extract.crop_faces import CropParams, source_of
from tasks.extract.embed_faces import BackboneChoice

CODE_VERSION = 1


def provide_zero_shot_head(store: Store, backbone: BackboneChoice) -> Bundle:
    """The bundle of that head, written if it is not there yet.

    Raises:
        InputError: the backbone's classes are not expressions.
    """
    spec, params = get_spec(backbone.name), CropParams()
    try:
        head = zero_shot_head(spec.class_names, spec.embedding_size)
    except ValueError as error:
        raise InputError(f"backbone {backbone.name}: {error}; fit a head on its features") from error
    made_from = fingerprint(
        stage="zero_shot_head", version=CODE_VERSION, backbone=backbone.variant, classes=spec.class_names, crop=params
    )
    folder = f"heads/{variant_name('expr-zero-shot', made_from)}"
    found = find_bundle(store, folder)
    if found is not None and found.fingerprint == made_from:
        return found
    details: dict[str, Any] = {
        "task": "expr",
        "recipe": "zero-shot",
        "backbone": backbone.variant,
        "source": source_of(params),
        "backbone_name": backbone.name,
        "weights": backbone.weights,
        "precision": backbone.precision,
        "crop_params": asdict(params),
        "figure": "macro_f1",
        "figures": {},
        "seed_figures": [],
        "coverage": [],
    }
    return write_bundle(store, folder, head_to_bytes(head), fingerprint=made_from, details=details)
