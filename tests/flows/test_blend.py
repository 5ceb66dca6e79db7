"""Blends of heads, through fit, submit, score, compare and forget."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from data_contracts.challenge.editions import ABAW3_TEST_LISTS
from data_contracts.details.heads import HeadDetails, PostprocessingDetails
from data_contracts.errors import InputError
from data_contracts.store.bundles import find_bundle, list_bundles
from data_contracts.store.store import Store
from flows.commands.forget import forget
from flows.commands.import_features import import_features
from flows.commands.parameters import (
    CompareParameters,
    ForgetParameters,
    ImportFeaturesParameters,
    StatusParameters,
    ViewParameters,
)
from flows.commands.status import print_status
from flows.engine.run_results import SomeFailedError
from flows.extract import extract
from flows.fit import fit
from flows.pages.compare import compare
from flows.pages.view import view
from flows.rescore import rescore
from flows.score import score
from flows.submit import submit
from tasks.fit.predict_outputs import read_outputs
from tasks.fit.stored_heads import load_head
from tasks.fit.subject_features import find_features, list_features, read_sequence
from tasks.pages.write_report import write_report
from tests.flows.commands.test_import_features import values_of
from tests.tasks.pages.test_write_report import read_page


@pytest.fixture(scope="module")
def store(demo, tmp_path_factory):
    """A store with two heads of the demo."""
    return Store(demo.copy_store(tmp_path_factory.mktemp("blend") / "store", ["expr", "va"]))


@pytest.fixture(scope="module")
def options(demo, store, dask_address):
    return {"store": str(store.root), "annotations": demo.data, "dask_address": dask_address}


@pytest.fixture(scope="module")
def default(store):
    """The head of the demo."""
    return next(head.name for head in list_bundles(store, "heads") if head.name.startswith("va-default"))


@pytest.fixture(scope="module")
def blended(store, options, default):
    """A blend of two heads on the same features, and the second of them."""
    paper = fit("va", recipe="paper", **options)
    return fit("va", blend=[default, paper], **options), paper


def details_of(store: Store, head: str) -> HeadDetails:
    return HeadDetails.of(find_bundle(store, f"heads/{head}"))


def submit_va(demo, store, head, dask_address):
    lists = demo.data / "names_of_videos_in_each_test_set"
    test_list = lists / ABAW3_TEST_LISTS["va"]
    return Path(submit("va", str(store.root), test_list, head=head, dask_address=dask_address))


def test_outputs_are_the_weighted_mean_of_the_members(store, blended, default, options):
    head, paper = blended
    details = details_of(store, head)
    weights = {one.head: one.weights["va"] for one in details.members}
    assert len(weights) == 2 and paper in weights and sum(weights.values()) == pytest.approx(1)
    of_fold = {name: fold.weights["va"] for fold in details.weights_of_folds for name in fold.subjects}
    variant = find_features(store)
    heads = [load_head(store, find_bundle(store, f"heads/{name}")) for name in weights]
    units = {key.value("subject"): (key, one) for key, one in store.manifests("outputs", head=head).items()}
    assert set(units) == set(variant.subjects) and set(of_fold) < set(units)
    for subject, unit in units.items():
        present, outputs = read_outputs(store, *unit, ("va",))
        sequence = read_sequence(store, variant, subject)
        assert np.array_equal(present, sequence.present)
        expected = sum(
            weight * one.predict_sequence(sequence)["va"]
            for weight, one in zip(of_fold.get(subject, list(weights.values())), heads, strict=True)
        )
        assert outputs["va"][present] == pytest.approx(expected[present], abs=1e-5)
    assert fit("va", blend=[default, paper], **options) == head


def test_a_blend_is_submitted_scored_and_compared(demo, store, blended, tmp_path, dask_address, capsys):
    head, paper = blended
    assert submit_va(demo, store, head, dask_address).exists()
    assert "no fault" in capsys.readouterr().out
    request = {"store": str(store.root), "heads": [head], "dask_address": dask_address}
    score([next((demo.data / "videos").glob("validation*"))], tmp_path / "out", **request)
    assert head in (tmp_path / "out" / "predictions.json").read_text()
    capsys.readouterr()
    assert compare(CompareParameters(head, paper, str(store.root))) == 0
    printed = capsys.readouterr().out
    assert "blend" in printed and "Outputs or labels have changed" not in printed
    print_status(StatusParameters(str(store.root)))
    assert f"of {paper}" in capsys.readouterr().out
    _, page = read_page(store, write_report(store, name="store", written=datetime.now(UTC)))
    scores = {row[0]: row for row in page.tables["Scores on the validation set"]}
    assert scores[head][1:3] == ["va", "blend"]


@pytest.mark.service
def test_members_on_other_features_are_submitted_but_not_scored(
    demo, store, options, default, tmp_path, dask_address, capsys
):
    subject, frame, values = values_of(demo)
    np.savez(tmp_path / "a.npz", subject=subject, frame=frame, embedding=values)
    import_features(ImportFeaturesParameters(tmp_path / "a.npz", "audio", str(store.root), workers=1))
    other = fit("va", features_variant="imported_audio", features="embeddings", seeds=1, **options)
    head = fit("va", blend=[default, other], **options)
    assert "imported_audio" in capsys.readouterr().out
    assert submit_va(demo, store, head, dask_address).exists()
    with pytest.raises(InputError, match=f"head {head}: fitted on imported features"):
        score([demo.data / "videos"], tmp_path / "out", store=str(store.root), heads=[head])
    assert forget(ForgetParameters(None, str(store.root), features=["imported_audio"])) == 0
    printed = capsys.readouterr().out
    assert f"head {other}, which was fitted on" in printed and f"head {head}, which blends {other} on" in printed


@pytest.mark.service
def test_a_blend_of_two_backbones_predicts_videos_and_photos(
    demo, store, options, default, portraits, tmp_path, capsys
):
    with pytest.raises(SomeFailedError, match="15 extracted, 1 failed; first: index_videos corrupt"):
        extract(demo.data, str(store.root), backbone="efficientnet_lite0", workers=1)
    (variant,) = (one for one in list_features(store) if one.backbone.startswith("efficientnet_lite0"))
    other = fit("va", features_variant=variant.backbone, seeds=1, **options)
    head = fit("va", blend=[default, other], **options)
    Image.fromarray(portraits[0]).save(tmp_path / "photo.png")
    inputs, request = [*(demo.data / "videos").glob("test01*"), tmp_path / "photo.png"], {"store": str(store.root)}
    capsys.readouterr()
    for name in (default, other, head):
        score(inputs, tmp_path / name, heads=[name], workers=1, annotate=name == head, **request)
    printed = capsys.readouterr().out
    assert "backbone: emotion_lite0 " in printed and "backbone: efficientnet_lite0 " in printed
    settings = (tmp_path / head / "predictions.json").read_text()
    assert '"backbone": "emotion_lite0, efficientnet_lite0"' in settings and variant.backbone in settings
    weights = [one.weights["va"] for one in details_of(store, head).members]
    for dataset in ("person_outputs", "image_outputs"):
        values = []
        for name in (default, other, head):
            (unit,) = store.manifests(dataset, head=name).items()
            values.append(store.read_unit(*unit)["valence_value"].drop_null().to_numpy())
        assert len(values[0]) and values[2] == pytest.approx(weights[0] * values[0] + weights[1] * values[1], abs=1e-6)
    assert list((tmp_path / head).glob("*.annotated.mp4"))
    assert view(ViewParameters(None, out=str(tmp_path / head), **request)) == 0
    assert head in Path(capsys.readouterr().out.split("viewer: ")[1].strip()).read_text()
    score(inputs[:1], tmp_path / "main", heads=[head], people="main", workers=1, **request)
    assert store.manifests("outputs", head=head)
    with pytest.raises(InputError, match="each with its own weights; leave out the option"):
        score(inputs, tmp_path / "out", heads=[head], backbone="emotion_lite0", **request)
    (tmp_path / "videos").mkdir()
    shutil.copy(inputs[0], tmp_path / "videos" / "new.mp4")
    more = {"people": "main", "crops": False, "settle_seconds": 0, "workers": 1}
    found = rescore([tmp_path / "videos"], out=tmp_path / "main", heads=[head], **more, **request)
    assert found.scored == ("new",)
    tables = [pl.read_parquet(tmp_path / "main" / f"{name}.parquet") for name in ("new", inputs[0].stem)]
    assert (tables[0]["valence"] - tables[1]["valence"]).abs().mean() < 0.05


@pytest.mark.parametrize(
    ("names", "more", "message"),
    [
        (["va-default"], {}, "at least two different heads"),
        (["va-default", "expr-default"], {}, "expected a head that was fitted for va on train, got a head of expr"),
        (["va-default", "va-blend"], {}, "a blend: name its members instead"),
        (["va-default", "none"], {}, "--blend none: expected the name of one head"),
        (["va-default", "va-paper"], {"seeds": 2}, "blended as they are; leave out --seeds"),
    ],
)
def test_what_cannot_be_blended_is_refused(store, blended, default, options, names, more, message):
    known = {"va-blend": blended[0], "va-default": default}
    names = [known.get(name, name) for name in names]
    with pytest.raises(InputError, match=message):
        fit("va", blend=names, **more, **options)


def test_a_blend_without_one_of_its_members_is_refused(demo, store, blended, default, dask_address, capsys):
    head, paper = blended
    assert forget(ForgetParameters(None, str(store.root), heads=[head, paper], dry_run=True)) == 0
    printed = capsys.readouterr().out
    assert f"not removed: the members of this blend, {default}; remove them" in printed and "blends this" not in printed
    assert forget(ForgetParameters(None, str(store.root), heads=[paper])) == 0
    assert f"not removed: head {head} blends this head" in capsys.readouterr().out
    with pytest.raises(InputError, match=f"head {head}: expected its member {paper} as it was blended, found none"):
        submit_va(demo, store, head, dask_address)
    rule = next(one for one in list_bundles(store, "postprocessing") if PostprocessingDetails.of(one).head == head)
    assert PostprocessingDetails.of(rule).figures.held_out
