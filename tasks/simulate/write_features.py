"""Stage ``write_features``: write simulated features of each subject, as ``embed_faces`` writes those of real faces."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data_contracts.details.datasets import FeaturesDetails
from data_contracts.schemas.features import features_dataset
from data_contracts.store.fingerprint import fingerprint, variant_name
from data_contracts.store.manifest import UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND, NO_FACE
from tasks.extract.embed_faces import features_table
from tasks.extract.import_crops import source_of
from tasks.simulate.features import BACKBONES, iter_features
from tasks.simulate.labels import LabelRule, shifted_state
from tasks.simulate.plan import SimulatedSubject, SimulationPlan
from tasks.units import Product, Unit

CODE_VERSION = 6
# The faces of which official crops these features would be computed from.
SOURCE = "cropped"


@dataclass(frozen=True)
class WriteFeaturesArgs:
    """The plan of one subject, the label rule that shifts its state, and the name of the backbone."""

    plan: SimulationPlan
    subject: SimulatedSubject
    rule: LabelRule
    backbone: str


def plan_write_features(
    plan: SimulationPlan, rule: LabelRule, backbones: Sequence[str]
) -> list[Unit[WriteFeaturesArgs]]:
    """Plan one unit per backbone and subject; ``backbones``: names in ``BACKBONES``."""
    units = []
    for name in backbones:
        variant = variant_name(name, fingerprint(backbone=BACKBONES[name], version=CODE_VERSION))
        for subject in plan.subjects:
            unit_fingerprint = fingerprint(
                stage="write_features",
                version=CODE_VERSION,
                backbone=BACKBONES[name],
                scale=plan.scale,
                seed=plan.seed,
                subject=subject.name,
            )
            place = (("backbone", variant), ("source", source_of(SOURCE)), ("subject", subject.name))
            alone = SimulationPlan(plan.scale, plan.seed, (subject,))
            arguments = WriteFeaturesArgs(alone, subject, rule, name)
            units.append(Unit(UnitKey("features", place, "00000"), unit_fingerprint, arguments))
    return units


def compute(store: Store, unit: Unit[WriteFeaturesArgs]) -> Product:
    """Compute the features of all frames of one subject."""
    given = unit.arguments
    backbone, subject = BACKBONES[given.backbone], given.subject
    missing = given.plan.missing(subject)
    product = Product(features_dataset(backbone.embedding_size, backbone.classes), [])
    product.counts[FACE_FOUND] = int((~missing).sum())
    product.counts[NO_FACE] = int(missing.sum())
    product.details = FeaturesDetails(
        first_frame=1,
        frame_count=subject.frames,
        subject=subject.name,
        frames_known_from="video",
        backbone_name=backbone.name,
        precision="float32",
        engine="simulate",
        published_scores=backbone.published_scores,
        class_names=backbone.classes,
    )

    def tables() -> Iterator[pa.Table]:
        state, first = shifted_state(given.plan, subject, given.rule).state, 0
        for embeddings, logits in iter_features(backbone, given.plan.seed, subject, state):
            frames = np.arange(first, first + len(logits))
            yield features_table(product.dataset, frames + 1, ~missing[frames], embeddings, logits)
            first += len(logits)

    product.tables = tables()
    return product
