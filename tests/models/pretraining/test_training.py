"""Training on images that are easy to distinguish: warm and cold noise."""

import numpy as np
import pytest
import torch

import models.pretraining.training
from models.backbones.network import Backbone, build_network, load_backbone
from models.backbones.registry import get_spec
from models.faces.crops import encode_jpeg
from models.pretraining.images import ImageFile
from models.pretraining.recipes import Phase, get_pretraining
from models.pretraining.training import BackboneTrainer

NAMES = ("Anger", "Happiness")


@pytest.fixture(scope="module")
def start():
    return load_backbone("efficientnet_lite0")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    random, file = np.random.default_rng(0), ImageFile(tmp_path_factory.mktemp("images"))
    classes = np.arange(24) % 2
    for label in classes:
        image = random.integers(0, 120, (48, 48, 3))
        image[..., 0 if label else 2] += 130
        file.add(encode_jpeg(image.astype(np.uint8)))
    affect = np.stack([classes * 1.0 - 0.5, random.uniform(-1, 1, 24)], axis=1).astype(np.float32)
    return file.finish(classes, affect, np.ones(24, np.float32))


PHASES = (Phase("head", 1, 1e-3), Phase("all", 2, 1e-3))


def trainer(start, phases=PHASES, **changes):
    changes = {"average": 0.0, "frozen_stages": 0} | changes
    recipe = get_pretraining("default", "emotion").replace(phases=phases, batch_size=8, **changes)
    return BackboneTrainer(start.spec.with_metadata({"input_px": 32}), start.tensors, recipe, class_names=NAMES)


@pytest.fixture(scope="module")
def plain(start, images):
    """A training without an average, and its checkpoints."""
    saved = []
    return trainer(start).run(images, images, save=saved.append), saved


@pytest.fixture(scope="module")
def averaged(start, images):
    return trainer(start, average=0.9).run(images, images)


def test_learns_and_evaluates_the_kept_weights(start, images):
    lines = []
    phases = (Phase("head", 5, 1e-2), Phase("all", 1, 1e-4))
    trained = trainer(start, phases, keep="best", grey=False, mixing=0.0).run(images, images, report=lines.append)
    assert trained.scores.classes.accuracy >= 0.9 and trained.scores.classes.recall.keys() == set(NAMES)
    best = max(trained.history, key=lambda entry: entry["accuracy"])
    assert trained.kept_epoch == best["epoch"] and len(lines) == len(trained.history) == 6
    assert trained.spec.class_names == NAMES and trained.tensors["classifier.weight"].shape == (2, 1280)
    assert trained.tensors["conv_stem.weight"].dtype == torch.float16


def test_head_phases_do_not_change_the_trunk(start, images):
    recipe = get_pretraining("paper", "emotion").replace(phases=(Phase("head", 1, 1e-3),), batch_size=8)
    spec = start.spec.with_metadata({"input_px": 32})
    trained = BackboneTrainer(spec, start.tensors, recipe, class_names=NAMES).run(images, None)
    for name, tensor in trained.tensors.items():
        if not name.startswith("classifier"):
            torch.testing.assert_close(tensor.float(), start.tensors[name].float(), atol=1e-2, rtol=1e-2)
            assert torch.equal(tensor, start.tensors[name].to(tensor.dtype))


def test_resuming_after_a_kill_gives_equal_weights(start, images, monkeypatch):
    monkeypatch.setattr(models.pretraining.training, "_SAVE_SECONDS", 0.0)
    shipped = {"average": 0.9, "frozen_stages": 2}
    whole = trainer(start, **shipped).run(images, None)

    class KilledError(Exception):
        pass

    saved = []

    def save(data):
        saved.append(data)
        if len(saved) == 6:
            raise KilledError

    with pytest.raises(KilledError):
        trainer(start, **shipped).run(images, None, save=save)
    lines = []
    resumed = trainer(start, **shipped).run(images, None, resume=saved[-1], report=lines.append)
    assert lines[0] == "resuming in epoch 2, after 2 batches"
    assert resumed.history == whole.history
    assert all(torch.equal(whole.tensors[name], tensor) for name, tensor in resumed.tensors.items())


def test_moving_average_is_evaluated_and_kept(images, plain, averaged):
    trained, _ = plain
    assert not torch.equal(trained.tensors["conv_head.weight"], averaged.tensors["conv_head.weight"])
    assert [entry["train_loss"] for entry in trained.history] == [entry["train_loss"] for entry in averaged.history]
    kept = Backbone(averaged.spec, averaged.tensors, "", device="cpu")
    decided = kept.extract([images.read(row) for row in range(len(images))])[1].argmax(axis=1)
    assert averaged.scores.classes.accuracy == pytest.approx((decided == images.classes).mean())


def test_frozen_stages_keep_weights_and_statistics(start, images):
    trained = trainer(start, frozen_stages=2, average=0.5, weight_decay=0.1).run(images, None)
    for name in ("conv_stem.weight", "bn1.running_mean", "blocks.1.0.bn1.running_var", "blocks.1.1.conv_pw.weight"):
        assert torch.equal(trained.tensors[name], start.tensors[name].to(trained.tensors[name].dtype)), name
    assert not torch.equal(trained.tensors["blocks.2.0.bn1.running_var"], start.tensors["blocks.2.0.bn1.running_var"])


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_b0", pytest.param("tf_efficientnet_b2", marks=pytest.mark.service), "mobilenet_v1"]
)
def test_networks_of_the_paper_learn_with_its_recipe(name, images):
    spec = get_spec(name).with_metadata({"input_px": 32})
    torch.manual_seed(0)
    first = build_network(spec).state_dict()
    recipe = get_pretraining("paper", "emotion").replace(
        phases=(Phase("head", 1, 1e-3), Phase("all", 6, 1e-3)), batch_size=24
    )
    trained = BackboneTrainer(spec, first, recipe, class_names=NAMES).run(images, images)
    assert trained.history[-1]["train_loss"] < trained.history[0]["train_loss"]
    rebuilt = Backbone(trained.spec, trained.tensors, "", device="cpu")
    assert rebuilt.extract([images.read(0)])[1].shape == (1, 2)


def test_damaged_checkpoint_restarts_training(start, images, plain, averaged):
    """A checkpoint without an average restarts it too, from the starting weights and not those of the checkpoint."""
    _, saved = plain
    for data in (b"no checkpoint", saved[-1]):
        trained = trainer(start, average=0.9).run(images, None, resume=data)
        assert len(trained.history) == 3
        assert all(torch.equal(averaged.tensors[name], tensor) for name, tensor in trained.tensors.items())


def test_large_seeds_are_accepted(start, images):
    recipe = get_pretraining("default", "emotion").replace(phases=(Phase("head", 1, 1e-3),), batch_size=8)
    spec = start.spec.with_metadata({"input_px": 32})
    trained = BackboneTrainer(spec, start.tensors, recipe, class_names=NAMES, seed=20261124).run(images, None)
    assert len(trained.history) == 1


def test_valence_and_arousal_are_two_more_outputs(start, images):
    trained = trainer(start, valence_arousal=True).run(images, images)
    assert trained.spec.class_names == (*NAMES, "valence", "arousal")
    assert -1 <= trained.scores.mean_ccc <= 1 and trained.tensors["classifier.weight"].shape == (4, 1280)


def test_non_finite_loss_raises(start, images):
    broken = start.tensors | {"conv_stem.weight": start.tensors["conv_stem.weight"] * float("inf")}
    recipe = get_pretraining("default", "emotion")
    with pytest.raises(FloatingPointError, match="expected a finite loss"):
        spec = start.spec.with_metadata({"input_px": 32})
        BackboneTrainer(spec, broken, recipe, class_names=NAMES).run(images, None)


def test_starting_weights_of_another_network_are_refused(start):
    with pytest.raises(ValueError, match=r"expected tensor conv_stem\.weight"):
        BackboneTrainer(start.spec, {}, get_pretraining("paper", "emotion"), class_names=NAMES)
