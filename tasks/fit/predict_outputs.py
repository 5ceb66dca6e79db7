"""Stage ``predict_outputs``: predict probabilities or values for every frame of a subject with a head."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from data_contracts.details.datasets import OutputsDetails
from data_contracts.details.heads import HeadDetails
from data_contracts.errors import InputError
from data_contracts.schemas.outputs import BACKBONE_COLUMNS, OUTPUT_COLUMNS, outputs_dataset
from data_contracts.store.bundles import Bundle, find_bundle, read_file
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import Manifest, StoredUnit, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import BRANCHES_OF_TASK, FACE_FOUND, NO_FACE, BranchName
from models.decisions.blending import AnyHead, BlendedHead, blend
from models.decisions.postprocessing import backbone_expressions
from models.heads.head import Head, head_class, head_from_bytes
from models.heads.sequences import SubjectSequence
from tasks.fit.subject_features import (
    FeaturesVariant,
    find_features,
    nominal_seconds,
    read_features,
    read_sequence,
    with_frames,
)
from tasks.units import Product, Unit, stored_units

CODE_VERSION = 1


@dataclass(frozen=True)
class PredictOutputsArgs:
    """Folder and fingerprint of the head's bundle, and the features of one subject.

    ``members``: of a blend, each with its features; None: a member has none of this subject. ``weights``: of a blend,
    branch -> weight of each member.
    """

    head_folder: str
    head_fingerprint: str
    features: FeaturesVariant
    members: "tuple[PredictOutputsArgs | None, ...]" = ()
    weights: dict[BranchName, list[float]] = field(default_factory=dict)


def load_head(store: Store, bundle: Bundle) -> AnyHead:
    """Read the head of a bundle.

    Raises:
        InputError: a member of a blend is gone, or was fitted again.
    """
    if HeadDetails.of(bundle).members:
        heads = [_load_fitted(store, member) for member in members_of(store, bundle)]
        return BlendedHead(heads, weights_for(HeadDetails.of(bundle)))
    return _load_fitted(store, bundle)


def _load_fitted(store: Store, bundle: Bundle) -> Head:
    return head_from_bytes({name: read_file(store, bundle, name) for name in ("head.safetensors", "head.json")})


def members_of(store: Store, blend: Bundle) -> list[Bundle]:
    """Return the members of a blend; nothing of another head.

    Raises:
        InputError: one is gone, or was fitted again in another way.
    """
    found = []
    for member in HeadDetails.of(blend).members:
        bundle = find_bundle(store, f"heads/{member.head}")
        if bundle is None or bundle.fingerprint != member.fingerprint:
            got = "one that was fitted again" if bundle else "none"
            raise InputError(
                f"head {blend.name}: expected its member {member.head} as it was blended, found {got}; blend the heads "
                "again with fit --blend, or remove this one with forget --head"
            )
        found.append(bundle)
    return found


def weights_for(details: HeadDetails, subject: str | None = None) -> dict[BranchName, list[float]]:
    """Return the weights of a blend; for a validation subject, those that were chosen without its video."""
    for fold in details.weights_of_folds:
        if subject in fold.subjects:
            return {branch: fold.weights[branch] for branch in BRANCHES_OF_TASK[details.task]}
    return {branch: [one.weights[branch] for one in details.members] for branch in BRANCHES_OF_TASK[details.task]}


def open_head(store: Store, bundle: Bundle) -> AnyHead:
    """Read a head before any work.

    Raises:
        InputError: its kind is unknown, its files are not those of a head, or see ``members_of``.
    """
    for one in members_of(store, bundle) or [bundle]:
        _check_kind(one)
    try:
        return load_head(store, bundle)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"head {bundle.name}: {error}; run fit again") from error


def _check_kind(bundle: Bundle) -> None:
    try:
        head_class(HeadDetails.of(bundle).kind)
    except ValueError as error:
        raise InputError(f"head {bundle.name}: {error}; predict with the version of affwild2 that fitted it") from error


def plan_predict_outputs(
    store: Store,
    variant: FeaturesVariant,
    *,
    head: Bundle,
    subjects: list[str] | None = None,
    members: Mapping[str, FeaturesVariant] | None = None,
) -> list[Unit[PredictOutputsArgs]]:
    """Plan one unit per subject that has features (of ``subjects`` if given).

    A blend predicts the subjects that its first member has features of. ``members``: of a blend, name -> features, if
    they are not those that the member was fitted on.

    Raises:
        InputError: the head was fitted on features of another backbone, its kind is unknown, or see ``members_of``.
    """
    check_head_fits(head, variant.backbone)
    if HeadDetails.of(head).members:
        return _plan_blend(store, variant, head=head, subjects=subjects, given=members or {})
    if needs_sequences([head]):
        variant = with_frames(store, variant)
    units = []
    for subject in variant.subjects if subjects is None else subjects:
        if subject not in variant.subjects:
            continue
        unit_fingerprint = fingerprint(
            stage="predict_outputs",
            version=CODE_VERSION,
            head=head.fingerprint,
            features=variant.identity(subject),
        )
        place = (("head", head.name), ("source", variant.source), ("subject", subject))
        arguments = PredictOutputsArgs(head.folder, head.fingerprint, variant.of_subjects([subject]))
        units.append(Unit(UnitKey("outputs", place), unit_fingerprint, arguments))
    return units


def _plan_blend(
    store: Store,
    variant: FeaturesVariant,
    *,
    head: Bundle,
    subjects: list[str] | None,
    given: Mapping[str, FeaturesVariant],
) -> list[Unit[PredictOutputsArgs]]:
    details = HeadDetails.of(head)
    planned: list[dict[str, Unit[PredictOutputsArgs]]] = []
    for member in members_of(store, head):
        of = HeadDetails.of(member)
        features = given.get(member.name)
        if features is None:
            is_first = (of.backbone, of.source) == (variant.backbone, variant.source)
            features = variant if is_first else find_features(store, backbone=of.backbone, source=of.source)
        units = plan_predict_outputs(store, features, head=member, subjects=subjects)
        planned.append({unit.key.value("subject"): unit for unit in units})
    blended = []
    for subject, first in planned[0].items():
        units_of = [of.get(subject) for of in planned]
        weights = weights_for(details, subject)
        unit_fingerprint = fingerprint(
            stage="predict_blend",
            version=CODE_VERSION,
            head=head.fingerprint,
            members=[unit.fingerprint if unit else None for unit in units_of],
            weights=weights,
        )
        arguments = replace(
            first.arguments,
            head_folder=head.folder,
            head_fingerprint=head.fingerprint,
            members=tuple(unit.arguments if unit else None for unit in units_of),
            weights=weights,
        )
        place = (("head", head.name), ("source", variant.source), ("subject", subject))
        blended.append(Unit(UnitKey("outputs", place), unit_fingerprint, arguments))
    return blended


def needs_sequences(heads: Sequence[Bundle]) -> bool:
    """Return whether the outputs of one of the heads depend on other frames or on time."""
    return any(head_class(HeadDetails.of(head).kind).works_on == "sequences" for head in heads)


def check_head_fits(head: Bundle, backbone: str) -> None:
    """Check that a head was fitted on features of this variant.

    Raises:
        InputError: they are those of another backbone, or the kind of the head is unknown.
    """
    fitted_on = HeadDetails.of(head).backbone
    if fitted_on != backbone:
        raise InputError(
            f"head {head.name}: fitted on features of {fitted_on}, got those of {backbone}; "
            "extract with the head's backbone and weights"
        )
    if not HeadDetails.of(head).members:
        _check_kind(head)


@functools.lru_cache(maxsize=8)
def cached_head(store_url: str, folder: str, head_fingerprint: str) -> tuple[AnyHead, HeadDetails]:
    """Return a head of the store and its facts; the process keeps the last eight.

    Raises:
        InputError: the head is gone, or is another one.
    """
    store = Store(store_url)
    bundle = find_bundle(store, folder)
    if bundle is None or bundle.fingerprint != head_fingerprint:
        found = "another one" if bundle else "none"
        raise InputError(f"{folder}: expected the head that the run began with, got {found}; run again")
    return load_head(store, bundle), HeadDetails.of(bundle)


def compute(store: Store, unit: Unit[PredictOutputsArgs]) -> Product:
    """Predict the outputs of one subject. Frames without a face have none: post-processing interpolates them."""
    given = unit.arguments
    head, details = cached_head(store.url, given.head_folder, given.head_fingerprint)
    dataset = outputs_dataset(BRANCHES_OF_TASK[details.task], has_backbone=bool(details.gate_classes))
    product, subject = Product(dataset, []), unit.key.value("subject")
    product.details = OutputsDetails(
        frame_count=given.features.last_frame(subject), frames_known_from=given.features.frames_known_from(subject)
    )
    predicted = _blend_subject(store, unit) if given.members else _predict_parts(store, given, subject, head)
    product.tables = _tables(predicted, details, product)
    return product


# Which frames have a face, branch -> outputs, and the logits of the backbone (None: of a blend).
_Predicted = Iterator[tuple[np.ndarray, dict[BranchName, np.ndarray], np.ndarray | None]]


def _predict_parts(store: Store, given: PredictOutputsArgs, subject: str, head: AnyHead) -> _Predicted:
    for sequence in _sequences(store, given.features, subject, head):
        yield sequence.present, head.predict_sequence(sequence), sequence.logits


def _blend_subject(store: Store, unit: Unit[PredictOutputsArgs]) -> _Predicted:
    """Yield the outputs of a whole subject: those of the members are small."""
    given, subject = unit.arguments, unit.key.value("subject")
    parts: list[tuple[np.ndarray, dict[BranchName, np.ndarray]] | None] = []
    for one in given.members:
        head = cached_head(store.url, one.head_folder, one.head_fingerprint)[0] if one else None
        parts.append(predict_subject(store, one.features, subject, head) if one and head else None)
    yield *blend(parts, given.weights, given.features.last_frame(subject)), None


def _tables(predictions: _Predicted, details: HeadDetails, product: Product) -> Iterator[pa.Table]:
    first = 1
    for has_face, predicted, logits in predictions:
        frame = np.arange(first, first + len(has_face), dtype=np.int32)
        first += len(has_face)
        product.counts[FACE_FOUND] += int(has_face.sum())
        product.counts[NO_FACE] += int((~has_face).sum())
        columns = {"frame": pa.array(frame), "has_face": pa.array(has_face)}
        for branch in BRANCHES_OF_TASK[details.task]:
            for position, column in enumerate(OUTPUT_COLUMNS[branch]):
                columns[column.name] = pa.array(predicted[branch][:, position], mask=~has_face)
        columns |= backbone_columns(logits, details, ~has_face)
        yield pa.table(columns)


def backbone_columns(
    logits: np.ndarray | None, details: HeadDetails, mask: np.ndarray | None = None
) -> dict[str, pa.Array]:
    """Return the columns with the backbone's own expressions of a head with a gate, from logits [n, C]; else none.

    ``mask``: bool [n], rows that are null.
    """
    if not details.gate_classes or logits is None:
        return {}
    expressions = backbone_expressions(logits, details.gate_classes)
    return {one.name: pa.array(expressions[:, at], mask=mask) for at, one in enumerate(BACKBONE_COLUMNS)}


def _sequences(store: Store, features: FeaturesVariant, subject: str, head: AnyHead) -> Iterator[SubjectSequence]:
    """Yield the subject's sequence: as a whole if the head needs it, else in the parts that the store has."""
    if head.works_on == "sequences":
        yield read_sequence(store, features, subject)
        return
    with_embeddings = any(branch.features != "scores" for branch in head.config.branches.values())
    for frame, has_face, embeddings, logits in read_features(store, features, subject, with_embeddings=with_embeddings):
        yield SubjectSequence(embeddings, logits, has_face, nominal_seconds(frame))


def predict_subject(
    store: Store, features: FeaturesVariant, subject: str, head: AnyHead
) -> tuple[np.ndarray, dict[BranchName, np.ndarray]]:
    """Predict (present bool [T], branch -> float32 [T,K]) of a subject from frame 1 on, without writing them.

    Values without a face have no meaning.
    """
    parts = [(one.present, head.predict_sequence(one)) for one in _sequences(store, features, subject, head)]
    outputs = {branch: np.concatenate([predicted[branch] for _, predicted in parts]) for branch in head.config.branches}
    return np.concatenate([present for present, _ in parts]), outputs


def predicted_outputs(store: Store, units: Sequence[Unit[PredictOutputsArgs]]) -> dict[str, StoredUnit]:
    """Return subject -> unit for the planned units that exist. Outputs of other features or heads do not count."""
    return {key.value("subject"): unit for key, unit in stored_units(store, units).items()}


def read_outputs(
    store: Store, key: UnitKey, manifest: Manifest, branches: tuple[BranchName, ...]
) -> tuple[np.ndarray, dict[BranchName, np.ndarray]]:
    """Read (present bool [T], branch -> float32 [T,K]) of a subject from frame 1 on. Values without a face are NaN."""
    table = store.read_unit(key, manifest)
    return table["has_face"].to_numpy(), to_outputs(table, branches)


def read_backbone(store: Store, key: UnitKey, manifest: Manifest) -> np.ndarray:
    """Read the backbone's own expressions float32 [T, 8] beside the outputs of a subject. Without a face: NaN."""
    return to_backbone(store.read_unit(key, manifest, columns=[one.name for one in BACKBONE_COLUMNS]))


def to_backbone(table: pa.Table) -> np.ndarray:
    """Return the backbone's own expressions float32 [n, 8] of rows of outputs. Values without a face are NaN."""
    columns = [table[one.name].fill_null(float("nan")).to_numpy() for one in BACKBONE_COLUMNS]
    return np.stack(columns, axis=1).astype(np.float32)


def to_outputs(table: pa.Table, branches: tuple[BranchName, ...]) -> dict[BranchName, np.ndarray]:
    """Return branch -> float32 [n, K] of rows of outputs. Values without a face are NaN."""
    return {
        branch: np.stack(
            [table[c.name].fill_null(float("nan")).to_numpy() for c in OUTPUT_COLUMNS[branch]], axis=1
        ).astype(np.float32)
        for branch in branches
    }
