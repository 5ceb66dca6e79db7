import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_contracts.challenge.pictures import Picture
from data_contracts.details.backbones import BackboneDetails
from data_contracts.errors import InputError
from data_contracts.store.bundles import list_bundles
from data_contracts.store.fingerprint import canonical_json
from data_contracts.store.store import Store
from models.backbones.network import load_backbone
from models.pretraining.recipes import Phase, get_pretraining
from tasks.pretrain.crop_pictures import compute, plan_crop_pictures
from tasks.pretrain.pretrain_backbone import PretrainingChoice, draw_curves, make, plan_pretrain_backbone, split_of
from tasks.units import run_unit, split_pending, stored_units

RECIPE = get_pretraining("default", "emotion").replace(phases=(Phase("head", 1, 1e-3),), batch_size=8)
CHOICE = PretrainingChoice("efficientnet_lite0", RECIPE)


@pytest.fixture
def collection(tmp_path, portraits):
    """Two portraits, twelve times each, with boxes that move a little."""
    pictures = []
    for number, (portrait, expression) in enumerate(zip(portraits, ("Neutral", "Happiness"), strict=True)):
        path = tmp_path / f"{number}.jpg"
        Image.fromarray(portrait).save(path)
        height, width = portrait.shape[:2]
        for shift in range(24):
            box = (shift, shift, width - shift, height - shift)
            pictures.append(Picture(path, f"{expression}{shift}", expression, None, box))
    store = Store(tmp_path / "store")
    units = plan_crop_pictures(pictures, collection="portraits", known={})
    for unit in units:
        run_unit(store.url, compute, unit)
    return store, list(stored_units(store, units).values())


def test_trained_backbone_is_usable(collection):
    store, units = collection
    job = plan_pretrain_backbone(units, None, PretrainingChoice("efficientnet_lite0", RECIPE, input_px=32))
    report = run_unit(store.url, make, job)
    assert report.cause is None
    (bundle,) = split_pending(store, [job]).ready
    path = store.locate(f"{bundle.folder}/backbone.safetensors")
    backbone = load_backbone("efficientnet_lite0", weights=Path(path))
    assert backbone.class_names == ("Happiness", "Neutral") and backbone.spec.input_px == 32
    assert backbone.extract([np.zeros((50, 40, 3), np.uint8)])[1].shape == (1, 2)
    assert not store.exists(f"{job.folder}/_checkpoint.pt")
    other = plan_pretrain_backbone(units, None, PretrainingChoice("efficientnet_lite0", RECIPE, input_px=64))
    assert other.folder != job.folder


def test_too_few_faces_are_reported(collection):
    store, units = collection
    recipe = RECIPE.replace(goal="emotion")
    job = plan_pretrain_backbone(units, None, PretrainingChoice("efficientnet_lite0", recipe, validation_share=0.9))
    report = run_unit(store.url, make, job)
    assert "expected faces of at least two classes" in report.cause


def test_untrained_people_are_still_evaluated(collection):
    store, units = collection

    def report_of(*names):
        choice = PretrainingChoice("efficientnet_lite0", RECIPE, input_px=32, untrained=names)
        return run_unit(store.url, make, plan_pretrain_backbone(units, None, choice))

    assert report_of("Neutral0", "Neutral1", "Happiness2").cause is None
    validated = {bundle.details["coverage"]["validation"]["people"] for bundle in list_bundles(store, "backbones")}
    everyone = [
        {"identity": f"{name}{number}", "picture": ""} for name in ("Neutral", "Happiness") for number in range(24)
    ]
    assert validated == {sum(split_of(row, CHOICE) == "validation" for row in everyone)}, (
        "they are not removed from the validation set"
    )
    known = {bundle.details["coverage"]["untrained_pictures"] for bundle in list_bundles(store, "backbones")}
    sides = [split_of({"identity": name, "picture": ""}, CHOICE) for name in ("Neutral0", "Neutral1", "Happiness2")]
    assert known == {sides.count("train")} and sides.count("train") > 0
    everybody = report_of(*(f"Neutral{number}" for number in range(24)))
    assert "expected faces of at least two classes" in everybody.cause


def test_validation_photos_of_people_in_training_are_excluded(collection):
    store, units = collection
    choice = PretrainingChoice("efficientnet_lite0", RECIPE, input_px=32)
    excluded = tuple(f"{name}{number}" for name in ("Neutral", "Happiness") for number in range(20))
    jobs = [plan_pretrain_backbone(units, units, replace(choice, excluded=names)) for names in (excluded, ())]
    assert jobs[0].fingerprint != jobs[1].fingerprint
    assert "excluded" not in canonical_json(choice), "other backbones would be trained again"
    assert run_unit(store.url, make, jobs[0]).cause is None
    (bundle,) = list_bundles(store, "backbones")
    coverage = BackboneDetails.of(bundle).coverage
    assert (coverage.train.people, coverage.validation.people, coverage.excluded_pictures) == (48, 8, 40)


def test_sets_share_no_people_for_emotions_and_share_people_for_identities():
    emotion = PretrainingChoice("efficientnet_lite0", RECIPE)
    rows = [{"identity": f"p{n}", "picture": f"/x/{n}_{k}.jpg"} for n in range(300) for k in range(3)]
    sides = {}
    for row in rows:
        sides.setdefault(row["identity"], set()).add(split_of(row, emotion))
    assert all(len(side) == 1 for side in sides.values())
    share = sum(side == {"validation"} for side in sides.values()) / 300
    assert 0.18 < share < 0.32
    identity = PretrainingChoice("efficientnet_lite0", RECIPE.replace(goal="identity"))
    mixed = {row["identity"]: set() for row in rows}
    for row in rows:
        mixed[row["identity"]].add(split_of(row, identity))
    assert any(len(side) == 2 for side in mixed.values())


def test_backbone_without_weights_is_refused(collection):
    _, units = collection
    with pytest.raises((InputError, ValueError), match="no weights are bundled"):
        plan_pretrain_backbone(units, None, PretrainingChoice("tf_efficientnet_b0", RECIPE))


def test_curves_are_an_image():
    file = io.BytesIO()
    draw_curves([{"epoch": e, "train_loss": 1 / e, "accuracy": 0.5 + e / 20} for e in (1.0, 2.0, 3.0)], file)
    image = np.asarray(Image.open(file).convert("RGB"))
    assert image.shape[0] > 300 and image.shape[1] > 800 and len(np.unique(image)) > 50
    empty = io.BytesIO()
    draw_curves([{"epoch": 1.0, "train_loss": 1.0}], empty)
    assert empty.getvalue() != file.getvalue()
