"""Stage ``image_outputs``: predict probabilities or values for the faces of images with a head."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from data_contracts.details.heads import HeadDetails
from data_contracts.schemas.outputs import OUTPUT_COLUMNS, image_outputs_dataset
from data_contracts.store.bundles import Bundle
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import StoredUnit, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import BRANCHES_OF_TASK, FACE_FOUND, BranchName
from models.decisions.blending import AnyHead, blend
from models.heads.sequences import SubjectSequence
from tasks.fit.predict_outputs import output_columns
from tasks.fit.stored_heads import cached_head, members_of, weights_for
from tasks.units import Product, Unit

CODE_VERSION = 1


@dataclass(frozen=True)
class ImageOutputsArgs:
    """Folder and fingerprint of the head's bundle, and a block of ``image_features``.

    ``members``: of a blend of heads on several backbones, each with its features; else empty. ``weights``: of these
    members, branch -> weight of each.
    """

    head_folder: str
    head_fingerprint: str
    features: StoredUnit
    members: "tuple[ImageOutputsArgs, ...]" = ()
    weights: dict[BranchName, list[float]] = field(default_factory=dict)


def plan_image_outputs(
    store: Store, blocks: Mapping[str, Mapping[str, StoredUnit]], head: Bundle
) -> list[Unit[ImageOutputsArgs]]:
    """Plan one unit per block of ``image_features`` (variant -> block -> unit) that the head's backbones have.

    Raises:
        InputError: see ``members_of``.
    """
    members, details = members_of(store, head), HeadDetails.of(head)
    variants = [HeadDetails.of(one).backbone for one in members]
    units = []
    for block, unit in blocks[details.backbone].items():
        arguments, more = ImageOutputsArgs(head.folder, head.fingerprint, unit), {}
        if len(set(variants)) > 1:
            found = [blocks[variant].get(block) for variant in variants]
            features = [one for one in found if one is not None]
            if len(features) < len(found):
                continue
            of_members = [
                ImageOutputsArgs(one.folder, one.fingerprint, of) for one, of in zip(members, features, strict=True)
            ]
            arguments = replace(arguments, members=tuple(of_members), weights=weights_for(details))
            more = {"members": [one.manifest.fingerprint for one in features]}
        unit_fingerprint = fingerprint(
            stage="image_outputs",
            version=CODE_VERSION,
            head=head.fingerprint,
            features=unit.manifest.fingerprint,
            **more,
        )
        place = (("head", head.name), *(pair for pair in unit.key.partitions if pair[0] != "backbone"))
        units.append(Unit(UnitKey("image_outputs", place), unit_fingerprint, arguments))
    return units


def compute(store: Store, unit: Unit[ImageOutputsArgs]) -> Product:
    """Return one row per face. Each face is a subject of its own: images have no order in time."""
    given = unit.arguments
    head, details = cached_head(store.url, given.head_folder, given.head_fingerprint)
    branches = BRANCHES_OF_TASK[details.task]
    table = store.read_unit(*given.features)
    columns = {"image": table["image"], "face": table["face"]}
    outputs = _blend(store, given) if given.members else _predict(head, table, branches)
    logits = _vectors(table["logits"]) if table.num_rows else np.zeros((0, len(details.gate_classes)), np.float32)
    columns |= output_columns(outputs, logits, details)
    dataset = image_outputs_dataset(branches, has_backbone=bool(details.gate_classes))
    product = Product(dataset, [pa.table(columns).cast(dataset.schema)])
    product.counts[FACE_FOUND] = table.num_rows
    return product


def _blend(store: Store, given: ImageOutputsArgs) -> dict[BranchName, np.ndarray]:
    """Return the weighted means of the outputs of heads on several backbones. Their features have the same rows."""
    parts = []
    for one in given.members:
        head, details = cached_head(store.url, one.head_folder, one.head_fingerprint)
        outputs = _predict(head, store.read_unit(*one.features), BRANCHES_OF_TASK[details.task])
        parts.append((np.ones(len(next(iter(outputs.values()))), bool), outputs))
    return blend(parts, given.weights, len(parts[0][0]))[1]


def _predict(head: AnyHead, table: pa.Table, branches: tuple[BranchName, ...]) -> dict[BranchName, np.ndarray]:
    """Return outputs float32 [N, K] of each branch for N faces."""
    count = table.num_rows
    if not count:
        return {branch: np.zeros((0, len(OUTPUT_COLUMNS[branch])), np.float32) for branch in branches}
    embeddings, logits = (_vectors(table[name]) for name in ("embedding", "logits"))
    sequence = SubjectSequence(embeddings, logits, np.ones(count, bool), np.zeros(count))
    if head.works_on == "rows":
        return head.predict_sequence(sequence)
    faces = [head.predict_sequence(sequence[at : at + 1]) for at in range(count)]
    return {branch: np.concatenate([one[branch] for one in faces]) for branch in branches}


def _vectors(column: pa.ChunkedArray) -> np.ndarray:
    array = column.combine_chunks()
    return array.flatten().to_numpy().reshape(len(array), -1)
