"""Temporal heads: prediction equals torch's layers, and fitting learns what other frames show."""

import numpy as np
import pytest
import torch

from models.heads.fitting import fit_seeds
from models.heads.head import BranchConfig, FitSettings, HeadConfig, head_class, head_from_bytes, head_to_bytes
from models.heads.recipes import HeadRecipe, TaskRecipe, TemporalLayers
from models.heads.sequences import SubjectSequence
from models.heads.temporal.fitting import make_network
from models.heads.temporal.networks import average_windows

KINDS = ("tcn", "transformer")
LAYERS = TemporalLayers(layers=2, kernel=3, heads=2, window=40)


def recipe(kind, branches=("va",), **changes):
    settings = {"l2": 0.0, "batch_size": 320, "epochs": 10, "checkpoint": "loss", "learning_rate": 5e-3}
    settings |= {"standardize": True, "kind": kind, "temporal": LAYERS}
    return HeadRecipe(branches, "embeddings", 16, **settings | changes)


def sequence(count, seed, rate=30):
    """The label is constant, and under so much noise that a single frame hardly shows it; some frames show no face."""
    random = np.random.default_rng(seed)
    present = random.random(count) < 0.9
    truth = random.normal(0, 1, 2)
    embeddings = (3 + random.normal(0, 2, (count, 6))).astype(np.float16)
    embeddings[:, :2] += truth.astype(np.float16)
    embeddings[~present] = 0
    values = np.tile(np.tanh(truth).astype(np.float32), (count, 1))
    values[random.random(count) < 0.1] = np.nan
    expr = np.where(np.isnan(values[:, 0]), -1, values[:, 0] > 0).astype(np.int8)
    labels = {"va": values, "expr": expr, "au": np.repeat(expr[:, None], 12, axis=1)}
    return SubjectSequence(embeddings, np.zeros((count, 3), np.float32), present, np.arange(count) / rate, labels)


TRAIN = [sequence(10 + seed, seed) for seed in range(60)]
VALIDATION = [sequence(60, seed) for seed in range(100, 110)]


def fit(kind, **changes):
    task = TaskRecipe((recipe(kind, **changes),))
    return fit_seeds(TRAIN, VALIDATION, task="va" if len(task.parts[0].branches) == 1 else "mtl", recipe=task)


@pytest.fixture(scope="module", params=KINDS)
def fitted(request):
    return fit(request.param)


def test_a_head_uses_the_frames_around_a_frame(fitted):
    # A single frame has a correlation of at most 0.45 with its label.
    assert fitted.figures["mean_ccc"] > 0.55
    whole = sequence(200, 0)
    values = fitted.head.predict_sequence(whole)["va"]
    shorter = {length: fitted.head.predict_sequence(whole[:length])["va"][:100] for length in (101, 120, 160)}
    reach = 3 if fitted.head.kind == "tcn" else LAYERS.window // 2
    for length, cut in shorter.items():
        differs = np.abs(cut - values[:100]).max(axis=1) > 1e-6
        assert differs.any() == (length < 100 + reach) and not differs[: length - reach - 1].any()


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_gives_same_bytes_and_another_seed_does_not(kind):
    part = recipe(kind, epochs=1, dropout=0.3, weight_decay=0.01)
    first, second, other = (head_class(kind).fit_part(TRAIN, None, part, FitSettings(seed)) for seed in (1, 1, 2))
    assert all((first.tensors[name] == values).all() for name, values in second.tensors.items())
    assert any((first.tensors[name] != values).any() for name, values in other.tensors.items())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 41, 133])
def test_prediction_equals_torch(kind, count):
    """The network in torch against the prediction in NumPy."""
    torch.manual_seed(count)
    network = make_network(recipe(kind), 6).eval()
    names = {"outputs.va.": "output.", "body.": ""}
    tensors = {}
    for name, values in network.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        tensors[f"seed0.va.{name}"] = values.numpy()
    config = HeadConfig("va", 6, 3, 1, {"va": BranchConfig("embeddings", 16, temporal=LAYERS)})
    head = head_class(kind)(config, tensors)
    one = sequence(count, seed=count)
    inputs, present = torch.from_numpy(one.embeddings).float()[None], torch.from_numpy(one.present)[None]

    with torch.no_grad():
        if kind == "tcn":
            expected = network(inputs, present, torch.ones_like(present))["va"][0]
        else:
            expected = average_windows(network, "va", LAYERS.window, inputs[0], present[0])
    got = next(head.predict_seeds("va", one))
    np.testing.assert_allclose(got[one.present], expected.numpy()[one.present], atol=1e-5)


def test_outputs_do_not_depend_on_the_chunks_that_are_computed(monkeypatch, fitted):
    one = sequence(200, 3)
    whole = fitted.head.predict_sequence(one)["va"]
    monkeypatch.setattr("models.heads.temporal.layers._CHUNK_POSITIONS", 7)
    monkeypatch.setattr("models.heads.temporal.head._BLOCK_FRAMES", 11)
    np.testing.assert_allclose(fitted.head.predict_sequence(one)["va"], whole, atol=1e-6)


def test_files_of_a_head_give_the_head(fitted):
    loaded = head_from_bytes(head_to_bytes(fitted.head))
    assert (type(loaded), loaded.config) == (type(fitted.head), fitted.head.config)
    one = sequence(50, 4)
    assert (loaded.predict_sequence(one)["va"] == fitted.head.predict_sequence(one)["va"]).all()
    broken = head_to_bytes(fitted.head)
    broken["head.json"] = broken["head.json"].replace(b'"layers": 2', b'"layers": 3')
    with pytest.raises(ValueError, match=r"expected tensor seed0\.va"):
        head_from_bytes(broken)


def test_faceless_frames_do_not_change_others(fitted):
    one = sequence(80, 5)
    changed = SubjectSequence(one.embeddings.copy(), one.logits, one.present, one.seconds)
    changed.embeddings[~one.present] = 9
    for branch, values in fitted.head.predict_sequence(one).items():
        got = fitted.head.predict_sequence(changed)[branch]
        assert (got[one.present] == values[one.present]).all() and np.isfinite(values).all()
    nobody = SubjectSequence(one.embeddings, one.logits, np.zeros(80, bool), one.seconds)
    assert np.isfinite(fitted.head.predict_sequence(nobody)["va"]).all()


def test_one_network_serves_several_branches():
    fitted = fit("tcn", branches=("va", "expr", "au"), checkpoint="p_mtl", epochs=2, batch_size=800)
    assert [entry["p_mtl"] > 0 for entry in fitted.histories[0][0]] == [True, True]
    tensors = fitted.head.tensors
    assert (tensors["seed0.va.project.weight"] == tensors["seed0.au.project.weight"]).all()
    outputs = fitted.head.predict_sequence(VALIDATION[0])
    assert {branch: values.shape for branch, values in outputs.items()} == {
        "va": (60, 2),
        "expr": (60, 8),
        "au": (60, 12),
    }


def test_an_epoch_visits_a_bounded_number_of_rows():
    part = recipe("tcn", epochs=2, epoch_rows=100)
    visited = []

    class Progress:
        def start_epochs(self):
            pass

        def add_rows(self, count):
            visited.append(count)

        end_epoch = start_epochs

    head_class("tcn").fit_part(TRAIN, None, part, FitSettings(0, progress=Progress()))
    assert len(visited) > 2 and 200 <= sum(visited) <= 2 * (100 + LAYERS.window)


def test_refused():
    for changes in ({"kernel": 2}, {"window": 31}, {"layers": 0}, {"window": 20_000}):
        with pytest.raises(ValueError, match=f"{next(iter(changes))}: expected an? "):
            TemporalLayers(**changes)
    unlabelled = [SubjectSequence(*(np.zeros((3, 4)),) * 2, np.zeros(3, bool), np.arange(3) / 30, TRAIN[0][:3].labels)]
    with pytest.raises(ValueError, match="va: expected labelled training rows, found none"):
        head_class("tcn").fit_part(unlabelled, None, recipe("tcn"), FitSettings(0))
    with pytest.raises(ValueError, match="expected one size of hidden units"):
        head_class("tcn").fit_part(TRAIN, None, recipe("tcn").replace(hidden_units=(8, 8)), FitSettings(0))
    with pytest.raises(ValueError, match="divisible by 3 heads, got 16"):
        three = BranchConfig("embeddings", 16, temporal=TemporalLayers(heads=3))
        head_class("transformer")(HeadConfig("va", 6, 3, 1, {"va": three}), {})
