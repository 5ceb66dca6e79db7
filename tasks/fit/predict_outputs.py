"""Stage ``predict_outputs``: predict probabilities or values for every frame of a subject with a head."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from data_contracts.details.datasets import OutputsDetails
from data_contracts.details.heads import HeadDetails
from data_contracts.schemas.outputs import BACKBONE_COLUMNS, OUTPUT_COLUMNS, outputs_dataset
from data_contracts.store.bundles import Bundle
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import Manifest, StoredUnit, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import BRANCHES_OF_TASK, FACE_FOUND, NO_FACE, BranchName
from models.decisions.blending import AnyHead, blend
from models.decisions.postprocessing import backbone_expressions
from models.decisions.smoothing import NOMINAL_FRAMES_PER_SECOND
from models.decisions.subject_outputs import SubjectOutputs
from models.heads.sequences import SubjectSequence
from tasks.fit.stored_heads import cached_head, check_head_fits, members_of, needs_sequences, weights_for
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
        yield pa.table(columns | output_columns(predicted, logits, details, has_face))


def output_columns(
    outputs: Mapping[BranchName, np.ndarray],
    logits: np.ndarray | None,
    details: HeadDetails,
    has_face: np.ndarray | None = None,
) -> dict[str, pa.Array]:
    """Return the columns of the outputs of a head, and those of the backbone's own expressions of a head with a gate.

    Args:
        outputs: branch -> [n, K].
        logits: of the backbone, [n, C]; None: of a blend.
        details: of the head.
        has_face: bool [n]; other rows are null. None: every row has a face.
    """
    mask, columns = None if has_face is None else ~has_face, dict[str, pa.Array]()
    for branch in BRANCHES_OF_TASK[details.task]:
        columns |= {
            one.name: pa.array(outputs[branch][:, at], mask=mask) for at, one in enumerate(OUTPUT_COLUMNS[branch])
        }
    if details.gate_classes and logits is not None:
        expressions = backbone_expressions(logits, details.gate_classes)
        columns |= {one.name: pa.array(expressions[:, at], mask=mask) for at, one in enumerate(BACKBONE_COLUMNS)}
    return columns


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


def read_subject(
    store: Store,
    unit: StoredUnit,
    branches: tuple[BranchName, ...],
    *,
    frames_per_second: float = NOMINAL_FRAMES_PER_SECOND,
    has_gate: bool = False,
) -> SubjectOutputs:
    """Read the outputs of a subject, without labels. ``has_gate``: also the backbone's own expressions."""
    table = store.read_unit(*unit)
    return SubjectOutputs(
        unit.key.value("subject"),
        to_outputs(table, branches),
        table["has_face"].to_numpy(),
        frames_per_second=frames_per_second,
        backbone=to_backbone(table) if has_gate else None,
    )


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
