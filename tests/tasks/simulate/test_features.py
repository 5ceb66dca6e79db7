"""Simulated features: their sizes, seeds, and units in a store."""

import dataclasses

import numpy as np
import pytest

from data_contracts.store.bundles import find_bundle
from data_contracts.store.simulations import attainable_score, find_simulation
from data_contracts.store.store import Store
from tasks.fit.subject_features import find_features, read_sequence
from tasks.simulate import attainable, write_features
from tasks.simulate.features import BACKBONES, draw_features
from tasks.simulate.labels import label_rule, shifted_state
from tasks.simulate.plan import plan_simulation
from tasks.units import run_unit

SCALE, SEED = 0.001, 2


@pytest.fixture(scope="module")
def plan():
    return plan_simulation(SCALE, SEED)


@pytest.fixture(scope="module")
def store(tmp_path_factory, plan):
    """A store with the features of one backbone, and the best attainable scores."""
    url = str(tmp_path_factory.mktemp("simulated"))
    rule = label_rule(SCALE, SEED)
    for unit in write_features.plan_write_features(plan, rule, ["simulated_enet_b0"]):
        assert run_unit(url, write_features.compute, unit).cause is None
    run_unit(url, attainable.make, attainable.plan_attainable(plan, rule))
    return Store(url)


@pytest.mark.parametrize(
    ("name", "size", "classes"),
    [("simulated_mobilenet", 1024, 7), ("simulated_enet_b0", 1280, 8), ("simulated_enet_b2", 1408, 8)],
)
def test_features_have_the_sizes_of_the_backbone(plan, name, size, classes):
    subject = plan.subjects[0]
    state = shifted_state(plan, subject, label_rule(SCALE, SEED)).state
    embeddings, logits = draw_features(BACKBONES[name], SEED, subject, state)

    assert (embeddings.shape, embeddings.dtype) == ((subject.frames, size), np.float16)
    assert (logits.shape, logits.dtype) == ((subject.frames, classes), np.float32)
    assert np.isfinite(embeddings).all()
    assert np.isfinite(logits).all()


def test_the_network_belongs_to_the_backbone_and_errors_to_the_seed(plan):
    """Without errors, the scores of one state are equal for every seed."""
    subject, state = plan.subjects[0], np.ones((5, 22), np.float32)
    backbone = BACKBONES["simulated_enet_b0"]
    exact = dataclasses.replace(backbone, embedding_error=0.0, score_error=0.0)

    def scores(seed, which):
        return draw_features(which, seed, subject, state)[1]

    assert np.array_equal(scores(1, exact), scores(2, exact))
    assert not np.array_equal(scores(1, backbone), scores(2, backbone))


def test_units_are_ordinary_features(store, plan):
    variant = find_features(store, backbone="simulated_enet_b0")

    assert list(variant.subjects) == [subject.name for subject in plan.subjects]
    assert variant.origin.backbone_name == "simulated_enet_b0"
    for subject in plan.subjects[:4]:
        sequence = read_sequence(store, variant, subject.name)
        assert np.array_equal(~sequence.present, plan.missing(subject))
        assert variant.frames_known_from(subject.name) == "video"


def test_repeated_units_have_equal_bytes(store, plan, tmp_path):
    units = write_features.plan_write_features(plan, label_rule(SCALE, SEED), ["simulated_enet_b0"])
    unit = units[5]
    run_unit(str(tmp_path), write_features.compute, unit)

    path = unit.key.part_path(unit.fingerprint)
    assert Store(str(tmp_path)).read_bytes(path) == store.read_bytes(path)
    assert store.read_bytes(units[6].key.part_path(units[6].fingerprint)) != store.read_bytes(path)


def test_the_store_holds_the_best_attainable_scores(store, plan, tmp_path):
    found = find_simulation(store)

    assert found is not None
    assert (found.scale, found.seed, found.subjects, found.frames) == (SCALE, SEED, len(plan.subjects), plan.frames)
    score = attainable_score(store, "expr", "macro_f1")
    assert score == found.attainable["expr"]["validation"]["macro_f1"]
    assert attainable_score(store, "expr", "unknown") is None
    assert attainable_score(Store(str(tmp_path)), "expr", "macro_f1") is None
    assert find_bundle(store, "simulation") is not None
