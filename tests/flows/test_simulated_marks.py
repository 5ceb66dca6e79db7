"""Everything made from simulated features says so, and nothing else does."""

import shutil
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from data_contracts.challenge.editions import ABAW3_TEST_LISTS
from data_contracts.challenge.submissions import read_submission, verify_submission
from data_contracts.errors import InputError
from data_contracts.store.bundles import list_bundles, write_bundle
from data_contracts.store.simulations import SIMULATION_FOLDER, SimulationDetails
from data_contracts.store.store import Store
from data_contracts.vocabulary import SIMULATED_NOTICE, SIMULATED_PREFIX, is_simulated
from flows.commands.download import download_submission
from flows.commands.forget import forget
from flows.commands.parameters import (
    DownloadSubmissionParameters,
    ForgetParameters,
    ReportParameters,
    StatusParameters,
    VerifyParameters,
)
from flows.commands.status import print_status
from flows.commands.verify import verify
from flows.fit import fit
from flows.pages.report import write_store_report
from flows.score import score
from flows.submit import submit
from models.backbones.registry import REGISTRY


def simulate_features(demo_store: Path, target: Path) -> None:
    """Copy the features of the demo into another store under the name of a simulated variant."""
    shutil.copytree(demo_store / "features", target / "features")
    (variant,) = (target / "features").glob("backbone=*")
    variant.rename(variant.with_name("backbone=simulated_mobilenet-0badcafe"))
    store = Store(target)
    for key, manifest in store.manifests("features").items():
        details = manifest.details | {"backbone_name": "simulated_mobilenet"}
        store.write_bytes(key.manifest_path, replace(manifest, details=details).to_json())


@dataclass(frozen=True)
class Simulated:
    """A store with a head and a submission on simulated features, and what the commands printed."""

    folder: Path
    head: str
    zip: Path
    printed: str


@pytest.fixture(scope="module")
def simulated(demo, tmp_path_factory, dask_address):
    folder = tmp_path_factory.mktemp("simulated") / "store"
    simulate_features(demo.store, folder)
    best = {"va": {"validation": {"mean_ccc": 0.8125}}}
    details = SimulationDetails(scale=0.001, seed=0, subjects=1, frames=1, attainable=best)
    write_bundle(Store(folder), SIMULATION_FOLDER, {}, fingerprint="0", details=details)
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr(
            "flows.engine.console._write", lambda text, *_, **fields: lines.extend([text, str(fields.get("rows", ""))])
        )
        patch.setattr("flows.engine.console._is_json", lambda: True)
        head = fit("va", str(folder), demo.data, recipe="paper", seeds=1, dask_address=dask_address)
        lists = demo.data / "names_of_videos_in_each_test_set"
        zip_path = submit("va", str(folder), lists / ABAW3_TEST_LISTS["va"], dask_address=dask_address)
    return Simulated(folder, head, Path(zip_path), "\n".join(lines))


def test_titles_of_all_tables_and_all_names_say_that_data_are_simulated(simulated):
    titles = [line.split(": ")[0] for line in simulated.printed.splitlines() if line.endswith(f": {SIMULATED_NOTICE}")]
    assert titles == ["Stages", "Labels", "Validation", "Stages", "Submissions"]
    assert "'best attainable': 0.8125}" in simulated.printed
    made = [
        bundle
        for kind in ("heads", "postprocessing", "submissions")
        for bundle in list_bundles(Store(simulated.folder), kind)
    ]
    assert len(made) == 3
    assert all(is_simulated(bundle.name) for bundle in made)
    assert simulated.head.startswith("simulated_va-paper-")
    assert [path.name for path in (simulated.folder / "outputs").iterdir()] == [f"head={simulated.head}"]


def test_the_organisers_formats_stay_as_they_are_and_the_zip_says_what_it_is(simulated, demo, tmp_path, capsys):
    lists = demo.data / "names_of_videos_in_each_test_set"
    assert simulated.zip.name == "simulated_abaw3_va.zip"
    with zipfile.ZipFile(simulated.zip) as archive:
        assert archive.comment == SIMULATED_NOTICE.encode()
    renamed = tmp_path / "abaw3_va.zip"
    shutil.copy(simulated.zip, renamed)
    for path in (simulated.zip, simulated.zip.parent, renamed):
        assert verify(VerifyParameters(str(path), test_list=str(lists / ABAW3_TEST_LISTS["va"]))) == 0
        assert f"note: {path}: {SIMULATED_NOTICE}\n" in capsys.readouterr().out
    real = next((demo.store / "submissions").glob("abaw3-va-*/*.zip"))
    assert not read_submission(real).is_simulated
    with zipfile.ZipFile(real) as archive:
        assert archive.comment == b""


def test_a_file_with_a_row_per_frame_has_a_marked_name(simulated, demo, tmp_path, dask_address):
    sample = tmp_path / "CVPR_6th_ABAW_VA_test_set_example.txt"
    sample.write_text("image_location,valence,arousal\ntest01/00001.jpg,0.5,-0.5\ntest01/00002.jpg,0.5,-0.5\n")
    written = Path(submit("va", str(simulated.folder), sample, dask_address=dask_address))
    with zipfile.ZipFile(written) as archive:
        assert archive.namelist() == ["simulated_VA_predictions.txt"]
    assert verify_submission(written, test_list=sample) == []
    alone = written.parent / "predictions" / "simulated_VA_predictions.txt"
    assert read_submission(alone).is_simulated


def test_status_report_download_and_artifact_say_so(simulated, demo, tmp_path, capsys):
    from flows.artifacts import _submission_in_markdown

    assert print_status(StatusParameters(str(simulated.folder))) == 0
    named = f"{SIMULATED_NOTICE}: simulated_mobilenet-0badcafe, {simulated.head}, and everything"
    printed = capsys.readouterr().out
    assert f": {SIMULATED_NOTICE}" in " ".join(printed.split("dataset")[0].split())
    assert named in printed
    write_store_report(ReportParameters(str(simulated.folder)))
    page = (simulated.folder / "reports" / "store" / "index.html").read_text()
    assert named in page
    assert "(simulated data)" in page.split("</title>")[0]
    assert "best attainable" in page and "0.812" in page
    store = Store(simulated.folder)
    bundle = next(b for b in list_bundles(store, "submissions") if b.name == simulated.zip.parent.name)
    assert f"**{SIMULATED_NOTICE}**" in _submission_in_markdown("place", bundle)
    download_submission(DownloadSubmissionParameters(str(simulated.folder), bundle.name, to=str(tmp_path)))
    assert is_simulated(next(tmp_path.iterdir()).name)
    real = demo.copy_store(tmp_path / "real", ["va"])
    write_store_report(ReportParameters(str(real)))
    print_status(StatusParameters(str(real)))
    unmarked = (
        capsys.readouterr().out.partition(f"Store {real}")[2] + (real / "reports" / "store" / "index.html").read_text()
    )
    assert SIMULATED_NOTICE not in unmarked
    assert SIMULATED_PREFIX not in unmarked
    assert "(simulated data)" not in unmarked
    assert "best attainable" not in unmarked


def test_videos_are_not_predicted_by_heads_on_simulated_features(
    simulated, demo, tmp_path, store_copy, dask_address, capsys
):
    store, clip = shutil.copytree(simulated.folder, tmp_path / "copy"), demo.data / "videos" / "test01.mp4"
    with pytest.raises(InputError, match=rf"only heads on simulated features \({simulated.head}\)"):
        score([clip], tmp_path / "out", str(store), dask_address=dask_address)
    with pytest.raises(InputError, match=f"head {simulated.head}: fitted on simulated features"):
        score([clip], tmp_path / "out", str(store), heads=["simulated_va"], dask_address=dask_address)
    # Renamed folders do not hide it.
    (store / "heads" / simulated.head).rename(store / "heads" / "va-paper-0badcafe")
    with pytest.raises(InputError, match="head va-paper-0badcafe: fitted on simulated features"):
        score([clip], tmp_path / "out", str(store), heads=["va-paper"], dask_address=dask_address)
    # A store with heads on both kinds of features predicts with the others.
    shutil.copytree(simulated.folder / "heads", store_copy / "heads", dirs_exist_ok=True)
    score([clip], tmp_path / "out", str(store_copy), dask_address=dask_address)
    assert f"note: head {simulated.head} was not used: it was fitted on simulated features" in capsys.readouterr().out
    assert SIMULATED_PREFIX not in (tmp_path / "out" / "predictions.json").read_text()


def test_a_renamed_features_folder_does_not_hide_where_features_are_from(simulated, demo, tmp_path, dask_address):
    store = shutil.copytree(simulated.folder / "features", tmp_path / "store" / "features")
    (store / "backbone=simulated_mobilenet-0badcafe").rename(store / "backbone=mobilenet_7-0badcafe")
    head = fit("va", str(tmp_path / "store"), demo.data, recipe="paper", seeds=1, dask_address=dask_address)
    assert is_simulated(head)


def test_a_head_on_real_features_and_labels_of_simulated_subjects_is_marked_and_predicts(
    demo, tmp_path, dask_address, capsys
):
    store, data = tmp_path / "store", tmp_path / "data"
    shutil.copytree(demo.store / "features", store / "features")
    shutil.copytree(demo.data / "Third ABAW Annotations" / "VA_Estimation_Challenge", data / "VA_Estimation_Challenge")
    for number, path in enumerate(sorted(data.rglob("*.txt")), start=1):
        (folder,) = store.glob(f"features/*/*/subject={path.stem}")
        folder.rename(folder.with_name(f"subject=simulated{number:03d}"))
        path.rename(path.with_stem(f"simulated{number:03d}"))
    head = fit("va", str(store), data, recipe="paper", seeds=1, dask_address=dask_address)
    assert is_simulated(head)
    assert f"Validation: {SIMULATED_NOTICE}" in capsys.readouterr().out
    score([demo.data / "videos" / "test01.mp4"], tmp_path / "out", str(store), dask_address=dask_address)
    assert f'"head": "{head}"' in (tmp_path / "out" / "predictions.json").read_text()
    print_status(StatusParameters(str(store)))
    shown = capsys.readouterr().out.partition(f"Store {store}")[2]
    assert not shown.startswith(f": {SIMULATED_NOTICE}")
    assert f"{SIMULATED_NOTICE}: {head}, and everything" in shown


def test_a_zip_without_the_rows_of_a_forgotten_subject_keeps_its_mark(simulated, tmp_path):
    store = shutil.copytree(simulated.folder, tmp_path / "copy")
    assert forget(ForgetParameters(["test01"], str(store))) == 0
    path = store / simulated.zip.relative_to(simulated.folder)
    with zipfile.ZipFile(path) as archive:
        assert "test01.txt" not in archive.namelist()
        assert archive.comment == SIMULATED_NOTICE.encode()


def test_no_network_has_the_name_of_simulated_features():
    assert [name for name in REGISTRY if name.startswith(SIMULATED_PREFIX.rstrip("_"))] == []
