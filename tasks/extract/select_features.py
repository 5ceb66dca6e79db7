"""Stage ``select_features``: select the features of each subject from those of all faces, where no crops are stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.details.datasets import FeaturesDetails
from data_contracts.schemas.features import features_dataset
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import StoredUnit, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND, NO_FACE
from tasks.extract.embed_faces import SubjectFaces, features_table
from tasks.units import Product, Unit

CODE_VERSION = 1


@dataclass(frozen=True)
class SelectFeaturesArgs:
    """A unit of ``face_features``, and the unit of ``subjects`` that selects from it."""

    vectors: StoredUnit
    chosen_by: StoredUnit


def plan_select_features(
    subjects: Sequence[SubjectFaces], vectors: Mapping[str, Sequence[StoredUnit]]
) -> list[Unit[SelectFeaturesArgs]]:
    """Plan one unit per subject and segment. ``vectors``: video -> units of ``face_features`` of all its segments."""
    units = []
    for faces in subjects:
        assert faces.chosen_by is not None
        for segment in vectors[faces.video]:
            unit_fingerprint = fingerprint(
                stage="select_features",
                version=CODE_VERSION,
                vectors=segment.manifest.identity,
                subject=faces.subject,
                chosen=faces.chosen_by.manifest.identity,
            )
            place = tuple(pair for pair in segment.key.partitions if pair[0] != "video")
            features = UnitKey("features", (*place, ("subject", faces.subject)), segment.key.part)
            units.append(Unit(features, unit_fingerprint, SelectFeaturesArgs(segment, faces.chosen_by)))
    return units


def compute(store: Store, unit: Unit[SelectFeaturesArgs]) -> Product:
    """Return one row per frame of a segment: the features of one subject, or null where it has no face."""
    key, manifest = unit.arguments.vectors
    details = FeaturesDetails.of(manifest)
    chosen = store.read_unit(*unit.arguments.chosen_by, columns=["frame", "face", "subject"])
    chosen = chosen.filter(pc.equal(chosen["subject"], unit.key.value("subject")))
    mine = _orders(chosen)
    parts = []
    for batch in store.iter_unit(key, manifest):
        table = pa.Table.from_batches([batch])
        parts.append(table.filter(pa.array(np.isin(_orders(table), mine))))
    schema = store.schema_of(key, manifest)
    found = pa.concat_tables(parts) if parts else schema.empty_table()
    numbers = np.arange(details.first_frame, details.first_frame + details.frame_count)
    places = found["frame"].to_numpy() - details.first_frame
    has_face = np.zeros(len(numbers), bool)
    has_face[places] = True
    vectors = []
    for name in ("embedding", "logits"):
        column = found[name].combine_chunks()
        size = column.type.list_size
        vectors.append(np.zeros((len(numbers), size), column.type.value_type.to_pandas_dtype()))
        vectors[-1][places] = column.flatten().to_numpy().reshape(len(places), size)
    sizes = schema.field("embedding").type.list_size, details.class_names
    product = Product(features_dataset(*sizes), [], details=replace(details, problems=()))
    product.tables = [features_table(product.dataset, numbers, has_face, *vectors)]
    product.counts.update({FACE_FOUND: int(has_face.sum()), NO_FACE: int((~has_face).sum())})
    return product


def _orders(table: pa.Table) -> np.ndarray:
    """Return a number int64 [n] of each face that is the same in every table."""
    return table["frame"].to_numpy().astype(np.int64) << 16 | table["face"].to_numpy()
