"""Heads in affwild2 forget: what was made with a head is removed, and what depends on it is named."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from data_contracts.details.datasets import FeaturesDetails
from data_contracts.details.heads import BLEND, BlendMember
from data_contracts.errors import InputError
from data_contracts.schemas.features import features_dataset
from data_contracts.store.bundles import list_bundles, write_bundle
from data_contracts.store.manifest import UnitKey
from data_contracts.store.store import Store
from flows.commands.forget import forget
from flows.commands.parameters import ForgetParameters
from flows.score import score
from models.heads.head import head_to_bytes
from tasks.extract.embed_faces import features_table
from tasks.fit import predict_outputs
from tasks.fit.stored_heads import members_of
from tasks.fit.subject_features import find_features
from tasks.units import Product, run_unit, write_product
from tests.details_factory import head_details
from tests.flows.commands.conftest import content
from tests.models.heads.temporal.test_temporal_heads import fit as fit_temporal
from tests.models.heads.temporal.test_temporal_heads import sequence
from tests.processes import run_command


@pytest.mark.service
def test_a_head_is_removed_with_everything_that_was_made_with_it(demo, store_copy, tmp_path, dask_address, capsys):
    out = tmp_path / "out"
    score([demo.data / "videos" / "test02.mp4"], out, str(store_copy), dask_address=dask_address)
    name = next(path.name for path in (store_copy / "heads").glob("expr-*"))
    for report in (f"compare-{name}-other", f"compare-other-{name}", "compare-other-another"):
        Store(store_copy).write_bytes(f"reports/{report}/index.html", b"page")
    before = content(store_copy)
    capsys.readouterr()
    for given, message in {"typo": "none matches; found: au-default", "": "none matches"}.items():
        with pytest.raises(InputError, match=f"--head {given}: .*{message}"):
            forget(ForgetParameters(None, str(store_copy), heads=[given]))
    with pytest.raises(InputError, match=r"expected names of videos, heads with --head, .*, got none"):
        forget(ForgetParameters(None, str(store_copy)))
    assert forget(ForgetParameters(None, str(store_copy), heads=["expr"], dry_run=True)) == 0
    shown = capsys.readouterr().out
    assert f"{name}: would be removed" in shown and content(store_copy) == before
    (store_copy / "heads" / name / "head.json").write_text("damaged")

    assert forget(ForgetParameters(None, str(store_copy), heads=[name])) == 0
    printed = capsys.readouterr().out
    assert f"{name}: removed" in printed
    assert f"not removed: predictions of 1 subject in {out} that this head made" in printed
    gone = {path for path in before if path not in content(store_copy)}
    kinds = {path.parts[0] for path in gone}
    assert kinds == {"heads", "outputs", "person_outputs", "postprocessing", "submissions", "reports"}
    assert "compare-other-another" in Store(store_copy).list_folder("reports")
    assert all(name in str(path) or path.parts[0] == "submissions" for path in gone)
    assert not [path for path in store_copy.rglob("*") if name in path.name], "no empty folder is left"
    assert {path.parts[1].split("-")[1] for path in gone if path.parts[0] == "submissions"} == {"expr"}
    left = {bundle.name.split("-")[0] for bundle in list_bundles(Store(store_copy), "heads")}
    assert left == {"va", "au", "mtl"} and (out / "test02.csv").exists()
    for kind in ("postprocessing", "submissions"):
        assert len(list_bundles(Store(store_copy), kind)) == 3


def test_the_command_takes_a_head_without_a_video(demo, store_copy):
    finished = run_command("forget", "--head", "va", "--store", store_copy, "--dry-run")
    assert finished.returncode == 0 and "would be removed" in finished.stdout, finished.stderr
    finished = run_command("forget", "--store", store_copy)
    assert finished.returncode == 2 and "expected names of videos, heads with --head" in finished.stderr


@pytest.fixture(scope="module")
def temporal(tmp_path_factory):
    """A store with two temporal heads, their blend, a head fitted on both sets, and outputs of all but the last."""
    store = Store(tmp_path_factory.mktemp("temporal") / "store")
    files = {kind: head_to_bytes(fit_temporal(kind, epochs=1).head) for kind in ("tcn", "transformer")}
    heads = {
        kind: write_bundle(
            store,
            f"heads/va-{kind}-1",
            files[kind],
            fingerprint=f"{kind}-1",
            details=head_details("va", recipe=kind, kind=kind),
        )
        for kind in files
    }
    of_both = head_details("va", recipe="tcn", kind="tcn", scores_of="va-tcn-1", trained_on=("train", "validation"))
    write_bundle(store, "heads/va-tcn-2", files["tcn"], fingerprint="tcn-2", details=of_both)
    features = {"backbone": "net-1", "source": "mtcnn-1", "backbone_name": "net"}
    members = tuple(
        BlendMember(head=one.name, fingerprint=one.fingerprint, weights={"va": 0.5}, **features)
        for one in heads.values()
    )
    blend = head_details("va", recipe=BLEND, kind=BLEND, members=members)
    heads["blend"] = write_bundle(store, "heads/va-blend-1", {}, fingerprint="blend-1", details=blend)
    one, dataset = sequence(60, seed=1), features_dataset(6, ("a", "b", "c"))
    table = features_table(dataset, np.arange(1, 61), one.present, one.embeddings, one.logits)
    details = FeaturesDetails(first_frame=1, frame_count=60, backbone_name="net")
    key = UnitKey("features", (("backbone", "net-1"), ("source", "mtcnn-1"), ("subject", "clip")))
    write_product(store, key, Product(dataset, [table], details=details), fingerprint="f" * 64, started=0.0)
    for head in heads.values():
        (unit,) = predict_outputs.plan_predict_outputs(store, find_features(store), head=head)
        assert run_unit(store.url, predict_outputs.compute, unit).cause is None
    return Path(store.root)


def test_a_temporal_head_names_the_blend_and_the_head_that_depend_on_it(temporal, tmp_path, capsys):
    store = Store(shutil.copytree(temporal, tmp_path / "store"))
    assert forget(ForgetParameters(None, store.url, heads=["va-tcn-1"], dry_run=True)) == 0
    planned = capsys.readouterr().out
    assert forget(ForgetParameters(None, store.url, heads=["va-tcn-1"])) == 0
    for printed in (planned, capsys.readouterr().out):
        assert "not removed: head va-blend-1 blends this head, and predicts no more without it" in printed
        assert "not removed: head va-tcn-2, which was fitted on train and validation" in printed
    assert {key.value("head") for key in store.manifests("outputs")} == {"va-blend-1", "va-transformer-1"}
    assert [one.name for one in list_bundles(store, "heads")] == ["va-blend-1", "va-tcn-2", "va-transformer-1"]
    blend = next(one for one in list_bundles(store, "heads") if one.name == "va-blend-1")
    with pytest.raises(InputError, match="expected its member va-tcn-1 as it was blended, found none"):
        members_of(store, blend)


def test_a_blend_of_temporal_heads_names_the_members_that_stay(temporal, tmp_path, capsys):
    store = Store(shutil.copytree(temporal, tmp_path / "store"))
    assert forget(ForgetParameters(None, store.url, heads=["va-blend-1", "va-tcn-1"])) == 0
    printed = capsys.readouterr().out
    assert "the members of this blend, va-transformer-1; remove them with --head" in printed
    assert "blends this head" not in printed and {key.value("head") for key in store.manifests("outputs")} == {
        "va-transformer-1"
    }
