"""Outputs of persons whose faces have features of a subject, of other people, or of both."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from data_contracts.details.datasets import FacesDetails, FeaturesDetails, OutputsDetails, SubjectsDetails
from data_contracts.details.heads import BlendMember, HeadDetails
from data_contracts.errors import InputError
from data_contracts.schemas.faces import FACES, FRAMES, PERSONS, SUBJECTS
from data_contracts.schemas.features import features_dataset, other_features_dataset
from data_contracts.store.bundles import write_bundle
from data_contracts.store.manifest import StoredUnit, UnitKey
from data_contracts.store.store import Store
from models.heads.head import BranchConfig, HeadConfig, head_to_bytes
from models.heads.mlp import MlpHead
from tasks.extract.embed_faces import face_rows, features_table, subjects_of_source
from tasks.fit import predict_persons
from tasks.units import Product, run_unit, write_product
from tests.details_factory import head_details

SOURCE = (("source", "mtcnn-1"),)
# Frame, rank, person and subject of each face. Person 1 is lost in frames 3 and 4; person 2 changes ranks.
FOUND = [
    (2, 0, 1, "clip"),
    (2, 1, 2, None),
    (3, 0, 2, None),
    (5, 0, 2, None),
    (5, 1, 1, "clip"),
    (6, 0, 1, None),
    (8, 0, 3, None),
]
FRAME_COUNT, SEGMENT = 8, 4


def vectors(frames, ranks):
    """Return embeddings that name the face, exact in float16, and logits."""
    embeddings = np.array([frames, ranks, np.zeros(len(frames))]).T / 16
    return embeddings.astype("f2"), embeddings[:, :2].astype("f4")


class Lab:
    """A store with the faces, features and persons of one video, and a head that returns the embedding."""

    def __init__(self, folder):
        self.store = Store(folder)
        subjects = [(frame, rank, 0, subject) for frame, rank, _, subject in FOUND]
        columns = dict(zip(("frame", "face", "track", "subject"), zip(*subjects, strict=True), strict=True))
        details = SubjectsDetails(subjects=("clip",), segments=2)
        self.write(SUBJECTS, (*SOURCE, ("video", "clip")), columns, details)
        columns = dict(zip(("frame", "face", "person"), list(zip(*FOUND, strict=True))[:3], strict=True))
        self.write(PERSONS, (*SOURCE, ("video", "clip")), columns, SubjectsDetails(subjects=()))
        times = {"frame": range(1, 9), "pts": range(8), "pts_seconds": np.arange(8) / 4, "keyframe": [True] * 8}
        self.write(FRAMES, (("video", "clip"),), times, FacesDetails(first_frame=1, frame_count=8))
        self.others = {}
        self.add_features("net-1")
        self.heads = [self.write_head()]

    def add_features(self, backbone, *, scale=1):
        """Write features of a backbone; ``scale``: of its embeddings."""
        self.others[backbone] = {"clip": []}
        for first in (1, 1 + SEGMENT):
            self._write_segment(first, backbone, np.float16(scale))

    def write(self, dataset, partitions, rows, details, part="00000"):
        """Write a unit from a table or from some of its columns."""
        if isinstance(rows, dict):
            count = len(rows["frame"])
            arrays = [pa.array(rows.get(f.name, [None] * count), f.type) for f in dataset.schema]
            rows = pa.table(arrays, names=dataset.schema.names)
        key = UnitKey(dataset.name, partitions, part)
        digest = f"{abs(hash(key)):064x}"
        product = Product(dataset, [rows], details=details)
        return StoredUnit(key, write_product(self.store, key, product, fingerprint=digest, started=0.0))

    def _write_segment(self, first, backbone, scale):
        partitions = (("backbone", backbone), *SOURCE)
        details = FeaturesDetails(first_frame=first, frame_count=SEGMENT, backbone_name="net")
        part = f"{first // SEGMENT:05d}"
        self.write(
            FACES,
            (*SOURCE, ("video", "clip")),
            {"frame": [], "status": []},
            FacesDetails(first_frame=first, frame_count=SEGMENT),
            part,
        )
        frames = np.arange(first, first + SEGMENT)
        ranks = {frame: rank for frame, rank, _, subject in FOUND if subject}
        has_face = np.isin(frames, list(ranks))
        embeddings, logits = vectors(frames, [ranks.get(frame, 0) for frame in frames.tolist()])
        dataset = features_dataset(3, ("a", "b"))
        table = features_table(dataset, frames, has_face, scale * embeddings, logits)
        self.write(dataset, (*partitions, ("subject", "clip")), table, details, part)
        faces = [(f, r) for f, r, _, subject in FOUND if first <= f < first + SEGMENT and not subject]
        frames, ranks = (list(values) for values in zip(*faces, strict=True))
        dataset = other_features_dataset(3, ("a", "b"))
        embeddings, logits = vectors(frames, ranks)
        table = face_rows(dataset, frames, ranks, scale * embeddings, logits)
        unit = self.write(dataset, (*partitions, ("video", "clip")), table, details, part)
        self.others[backbone]["clip"].append(unit)

    def write_head(self, name="va-1", backbone="net-1", **facts):
        config = HeadConfig("va", 3, 2, 1, {"va": BranchConfig("embeddings", 0, "clip")})
        head = MlpHead(config, {"seed0.va.0.weight": np.eye(2, 3, dtype="f4"), "seed0.va.0.bias": np.zeros(2, "f4")})
        details = head_details("va", backbone=backbone, **facts)
        return write_bundle(self.store, f"heads/{name}", head_to_bytes(head), fingerprint=name, details=details)

    def plan(self):
        (unit,) = predict_persons.plan_predict_persons(
            self.store,
            subjects_of_source(self.store, "mtcnn-1"),
            source="mtcnn-1",
            others=self.others,
            heads=self.heads,
        )
        return unit

    def predict(self, *, scale=1):
        """Predict; return (person, frame, rank of the face that the outputs belong to; None without a face).

        ``scale``: of the outputs.
        """
        unit = self.plan()
        report = run_unit(self.store.url, predict_persons.compute, unit)
        assert report.cause is None, report.cause
        table = self.store.read_unit(unit.key, self.store.manifests("person_outputs")[unit.key])
        rows = zip(*(table[n].to_pylist() for n in ("person", "frame", "valence_value", "arousal_value")), strict=True)
        assert table["has_face"].to_pylist() == [value is not None for value in table["valence_value"].to_pylist()]
        found = []
        for person, frame, valence, arousal in rows:
            assert valence is None or valence * 16 == scale * frame
            found.append((person, frame, None if arousal is None else arousal * 16 / scale))
        return found


EXPECTED = [
    *((1, 2, 0), (1, 3, None), (1, 4, None), (1, 5, 1), (1, 6, 0)),
    *((2, 2, 1), (2, 3, 0), (2, 4, None), (2, 5, 0)),
    (3, 8, 0),
]


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


def test_a_person_has_a_row_for_every_frame_from_the_first_to_the_last_face(lab):
    assert lab.predict() == EXPECTED
    assert OutputsDetails.of(next(iter(lab.store.manifests("person_outputs").values()))).frame_count == 8


@pytest.mark.parametrize("works_on", ["rows", "sequences"])
def test_outputs_for_a_gate_have_the_expressions_of_the_backbone_in_each_face(lab, monkeypatch, works_on):
    monkeypatch.setattr(MlpHead, "works_on", works_on)
    lab.heads = [lab.write_head(gate_classes=("Anger", "Neutral"))]
    assert lab.predict() == EXPECTED
    ((key, manifest),) = lab.store.manifests("person_outputs").items()
    table = lab.store.read_unit(key, manifest)
    found = zip(*(table[f"backbone_p_{name}"].to_pylist() for name in ("anger", "other")), strict=True)
    for (_, frame, rank), (anger, other) in zip(EXPECTED, found, strict=True):
        expected = None if rank is None else pytest.approx(1 / (1 + np.exp((rank - frame) / 16)), abs=1e-6)
        assert anger == expected and other == (None if rank is None else 0)


@pytest.mark.parametrize("works_on", ["rows", "sequences"])
def test_a_blend_of_backbones_is_the_weighted_mean_of_its_members(lab, monkeypatch, works_on):
    monkeypatch.setattr(MlpHead, "works_on", works_on)
    lab.add_features("net-2", scale=2)
    heads = [lab.write_head(), lab.write_head("va-2", "net-2")]
    members = [
        BlendMember(
            head=one.name,
            fingerprint=one.fingerprint,
            backbone=HeadDetails.of(one).backbone,
            source="mtcnn-1",
            backbone_name="net",
            weights={"va": weight},
        )
        for one, weight in zip(heads, (0.25, 0.75), strict=True)
    ]
    details = replace(HeadDetails.of(heads[0]), members=tuple(members))
    lab.heads = [write_bundle(lab.store, "heads/va-blend-1", {}, fingerprint="b" * 64, details=details)]
    assert lab.predict(scale=0.25 + 0.75 * 2) == EXPECTED


def test_heads_on_sequences_get_one_person_with_its_own_times(lab, monkeypatch):
    seen = []

    def predict(head, sequence):
        seen.append((sequence.present.tolist(), sequence.seconds.tolist(), sequence.embeddings.any(axis=1).tolist()))
        return whole(head, sequence)

    whole = MlpHead.predict_sequence
    monkeypatch.setattr(MlpHead, "works_on", "sequences")
    monkeypatch.setattr(MlpHead, "predict_sequence", predict)
    assert lab.predict() == EXPECTED
    present = [[rank is not None for p, _, rank in EXPECTED if p == person] for person in (1, 2, 3)]
    assert [one[0] for one in seen] == present == [one[2] for one in seen]
    assert [one[1] for one in seen] == [[(f - 1) / 4 for p, f, _ in EXPECTED if p == person] for person in (1, 2, 3)]


def test_features_that_are_not_finite_are_not_trusted(lab):
    (key, manifest) = lab.others["net-1"]["clip"][0]
    embeddings, logits = vectors([2, 3], [1, 0])
    dataset = other_features_dataset(3, ("a", "b"))
    table = face_rows(dataset, [2, 3], [1, 0], embeddings * np.float16("nan"), logits)
    details = FeaturesDetails.of(manifest)
    product = Product(dataset, [table], details=details)
    wrong = write_product(lab.store, key, product, fingerprint="e" * 64, started=0.0)
    lab.others["net-1"]["clip"][0] = StoredUnit(key, wrong)
    assert "expected finite features" in run_unit(lab.store.url, predict_persons.compute, lab.plan()).cause
    assert key not in lab.store.manifests("other_features")


def test_a_head_on_other_features_is_refused(lab):
    details = replace(HeadDetails.of(lab.heads[0]), backbone="net-2")
    lab.heads = [write_bundle(lab.store, "heads/va-2", {}, fingerprint="w" * 64, details=details)]
    with pytest.raises(InputError, match="fitted on features of net-2, got those of net-1"):
        lab.plan()
