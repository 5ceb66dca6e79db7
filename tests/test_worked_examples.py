"""Execute the worked examples of docs/architecture.md: a smoother and a head that are added as the page says."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import models.heads
from data_contracts.details.heads import HeadDetails
from data_contracts.errors import InputError
from data_contracts.schemas.faces import FRAMES
from data_contracts.schemas.features import features_dataset
from data_contracts.schemas.labels import LABELS
from data_contracts.store.bundles import find_bundle
from data_contracts.store.manifest import Manifest, UnitKey
from data_contracts.store.store import Store
from models.decisions import smoothing
from models.decisions.postprocessing import BranchRule, PostProcessing
from models.decisions.recipes import DEFAULT, PAPER
from models.decisions.smoothing import Smoothing
from models.decisions.subject_outputs import SubjectOutputs
from models.heads import recipes
from models.recipes.registry import DEFAULT as DEFAULT_RECIPE
from models.tuning.tuning import tune_postprocessing as tune
from tasks.fit import fit_head, predict_outputs, tune_postprocessing
from tasks.fit.fit_head import HeadChoice
from tasks.fit.import_labels import labels_key
from tasks.fit.stored_heads import load_head
from tasks.fit.subject_features import find_features, read_sequence, with_frames
from tasks.units import run_unit

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
RANDOM = np.random.default_rng(0)


def code_blocks(heading):
    """Return the code of a section: a module or function, and the line that goes into the registry."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    code, registry_line = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return code, registry_line


@pytest.fixture
def savitzky_golay(monkeypatch):
    code, line = code_blocks("Add a smoother")
    names = dict(vars(smoothing))
    exec(code, names)
    for name, smoother in eval(f"{{{line}}}", names).items():
        monkeypatch.setitem(smoothing.SMOOTHERS, name, smoother)


def noisy_subjects():
    """Slow valence and arousal under noise."""
    subjects = []
    for number in range(4):
        seconds = np.arange(400) / 30
        truth = 0.8 * np.stack([np.sin(seconds + number), np.cos(seconds * 0.8 + number)], axis=1).astype("f4")
        noisy = {"va": truth + RANDOM.normal(0, 0.3, truth.shape).astype("f4")}
        subjects.append(SubjectOutputs(f"s{number}", noisy, np.ones(400, bool), np.arange(400), {"va": truth}))
    return subjects


def test_the_smoother_is_used_by_its_name(savitzky_golay, monkeypatch):
    added = [Smoothing("savitzky_golay", half_width, "seconds") for half_width in (0.23, 0.5, 1.67)]
    assert DEFAULT.fingerprint_parts("va")["smoothings"][-3:] == tuple(added)
    assert PAPER.smoothings_of("va") == (Smoothing("mean", 7),)
    (subject, *_) = subjects = noisy_subjects()
    rule = PostProcessing("va", rules={"va": BranchRule((added[1],))})
    assert PostProcessing.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
    smoothed = subject.smooth(rule)["va"]
    errors = [np.abs(values - subject.labels["va"]).mean() for values in (smoothed, subject.outputs["va"])]
    assert errors[0] < errors[1] / 2
    for name in ("mean", "median", "gaussian"):
        monkeypatch.delitem(smoothing.SMOOTHERS, name)
    tuned = tune(subjects, task="va", recipe=DEFAULT)
    assert tuned.postprocessing.rules["va"].smoothings[0].method == "savitzky_golay"
    assert tuned.held_out["mean_ccc"] > tuned.untuned["mean_ccc"]


FRAME_COUNT = 200
FEATURES = features_dataset(4, ("a", "b"))


def vectors(values, missing, name):
    return pa.FixedSizeListArray.from_arrays(
        pa.array(values.ravel()), type=FEATURES.schema.field(name).type, mask=pa.array(missing)
    )


def add_unit(store, dataset, key, columns, **details):
    arrays = [
        columns[field.name] if field.name in columns else pa.nulls(len(columns["frame"]), field.type)
        for field in dataset.schema
    ]
    table = pa.Table.from_arrays([pa.array(array) for array in arrays], dataset.schema.names)
    written = store.write_unit(key, dataset, [table.cast(dataset.schema)], fingerprint="f" * 64)
    store.finish_unit(key, Manifest("f" * 64, "f" * 64, *written, details=details))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Features of four subjects in two segments each; the label of a frame is in the features of the frame before."""
    store, random = Store(tmp_path_factory.mktemp("store")), np.random.default_rng(0)
    frame = np.arange(1, FRAME_COUNT + 1, dtype=np.int32)
    subjects, values, present = [], [], []
    for subject in ("s0", "s1", "s2", "s3"):
        embeddings, has_face = random.uniform(-1, 1, (FRAME_COUNT, 4)).astype("f2"), random.random(FRAME_COUNT) < 0.95
        place = (("backbone", "net-1"), ("source", "mtcnn-1"), ("subject", subject))
        for part, rows in enumerate((slice(0, 130), slice(130, FRAME_COUNT))):
            columns = {
                "frame": frame[rows],
                "has_face": has_face[rows],
                "embedding": vectors(embeddings[rows], ~has_face[rows], "embedding"),
                "logits": vectors(embeddings[rows, :2].astype("f4"), ~has_face[rows], "logits"),
            }
            details = {"first_frame": rows.start + 1, "frame_count": rows.stop - rows.start, "backbone_name": "net"}
            add_unit(store, FEATURES, UnitKey("features", place, f"{part:05}"), columns, **details)
        time = {"frame": frame, "pts": frame.astype("i8"), "pts_seconds": (frame - 1) / 25, "keyframe": frame == 1}
        add_unit(store, FRAMES, UnitKey("frames", (("video", subject),)), time)
        subjects.append(subject)
        values.append(np.concatenate([np.zeros((1, 2)), embeddings[:-1, :2]]).astype("f4"))
        present.append(np.concatenate([[False], has_face[:-1]]))
    for set_name, numbers in {"train": (0, 1, 2), "validation": (3,)}.items():
        truth = np.concatenate([values[n] for n in numbers])
        missing = ~np.concatenate([present[n] for n in numbers])
        columns = {
            "row": np.arange(len(truth)),
            "subject": np.repeat([subjects[n] for n in numbers], FRAME_COUNT),
            "frame": np.tile(frame, len(numbers)),
            "valence": pa.array(truth[:, 0], mask=missing),
            "arousal": pa.array(truth[:, 1], mask=missing),
        }
        add_unit(store, LABELS, labels_key("va", set_name), columns, subjects=[subjects[n] for n in numbers])
    return store


@pytest.fixture
def gru(monkeypatch, tmp_path):
    code, line = code_blocks("Add a head")
    (tmp_path / "gru.py").write_text(code)
    monkeypatch.setattr(models.heads, "__path__", [*models.heads.__path__, str(tmp_path)])
    for name, place in eval(f"{{{line}}}").items():
        monkeypatch.setitem(recipes.HEAD_KINDS, name, place)
    yield
    sys.modules.pop("models.heads.gru", None)


def fit_and_predict(store, choice):
    """Fit, predict all subjects and tune; returns the bundle of the head, and the outputs of the subjects."""
    variant = find_features(store)
    labels = {name: store.manifests("labels")[labels_key("va", name)] for name in ("train", "validation")}
    job = fit_head.plan_fit_head(store, variant, choice, labels=labels)
    assert run_unit(store.url, fit_head.make, job).cause is None
    head = find_bundle(store, job.folder)
    units = predict_outputs.plan_predict_outputs(store, variant, head=head)
    for unit in units:
        assert run_unit(store.url, predict_outputs.compute, unit).cause is None
    tuning = tune_postprocessing.plan_tune_postprocessing(
        head=head,
        outputs=predict_outputs.predicted_outputs(store, units),
        labels=labels["validation"],
        split=job.arguments.split,
        recipe=DEFAULT,
        frames_per_second={},
    )
    assert run_unit(store.url, tune_postprocessing.make, tuning).cause is None
    outputs = store.manifests("outputs", head=head.name)
    return head, {k.value("subject"): predict_outputs.read_outputs(store, k, m, ("va",)) for k, m in outputs.items()}


def test_the_head_is_fitted_on_sequences_and_predicts_from_earlier_frames(store, gru, monkeypatch):
    shorter = DEFAULT_RECIPE.heads["va"].replace(hidden_units=16, seeds=2, epochs=25, learning_rate=1e-2)
    monkeypatch.setitem(DEFAULT_RECIPE.heads, "va", shorter)
    head, outputs = fit_and_predict(store, HeadChoice("va", kind="gru"))
    perceptron, _ = fit_and_predict(store, HeadChoice("va"))
    assert (HeadDetails.of(head).kind, HeadDetails.of(perceptron).kind) == ("gru", "mlp")
    assert len(HeadDetails.of(head).seed_figures) == 2
    # The label of a frame cannot be seen in the frame itself.
    assert HeadDetails.of(head).figures["mean_ccc"] > 0.9 and HeadDetails.of(perceptron).figures["mean_ccc"] < 0.3
    loaded, variant = load_head(store, head), with_frames(store, find_features(store))
    for subject, (present, values) in outputs.items():
        sequence = read_sequence(store, variant, subject)
        assert sequence.present.tolist() == present.tolist() and len(sequence) == FRAME_COUNT
        np.testing.assert_allclose(sequence.seconds, np.arange(FRAME_COUNT) / 25)
        assert (loaded.predict_sequence(sequence)["va"][present] == values["va"][present]).all()
        assert np.isnan(values["va"][~present]).all()
    assert sorted(outputs) == sorted(variant.subjects)
    monkeypatch.delitem(recipes.HEAD_KINDS, "gru")
    with pytest.raises(
        InputError, match=r"head va-default-\w+: kind of head: expected one of mlp, .*, got 'gru'; predict with"
    ):
        predict_outputs.plan_predict_outputs(store, find_features(store), head=head)
