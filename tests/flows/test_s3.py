"""All flows on S3, with inputs and store there, compared with a local store."""

import io
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from distributed import Client
from PIL import Image

from data_contracts.challenge.editions import ABAW3_TEST_LISTS
from data_contracts.files.locations import location
from data_contracts.store.store import Store
from flows.commands.forget import forget
from flows.commands.import_features import import_features
from flows.commands.parameters import (
    ForgetParameters,
    ImportFeaturesParameters,
    ReportParameters,
    StatusParameters,
    VerifyParameters,
)
from flows.commands.status import print_status
from flows.commands.verify import verify
from flows.extract import extract
from flows.fit import fit
from flows.pages.report import write_store_report
from flows.score import score
from flows.submit import submit
from tasks.demo.generate import DemoDataParams, generate_demo_data
from tasks.fit.subject_features import find_features
from tests.faults.interruption_matrix import read_results

OLD_STORE = Path(__file__).parents[1] / "data" / "store_34a2ed4" / "store"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("s3") / "data"
    generate_demo_data(folder, params=DemoDataParams(2, 2, 1, frames=24))
    (folder / "videos" / "corrupt.mp4").unlink()
    return folder


def _set_variables(values):
    os.environ.update(values)


@pytest.fixture
def s3_workers(s3_bucket, dask_address):
    """Workers with the address of the server in their environment."""
    names = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    with Client(dask_address) as client:
        client.run(_set_variables, names)
    return dask_address


def put(folder: Path, url: str) -> None:
    place = location(url)
    place.fs.put(str(folder) + "/", place.path, recursive=True)


def bytes_of(url: str) -> dict[str, bytes]:
    """Return the bytes of all results by path, as ``read_results`` does for a local store."""
    place = location(url)
    place.fs.invalidate_cache()
    found = place.fs.cat(place.fs.find(place.path))
    names = {path.removeprefix(place.path.rstrip("/") + "/"): data for path, data in found.items()}
    return {n: d for n, d in names.items() if "manifest" not in n and "/" in n and not n.startswith(".")}


def write_features(path: Path, store: Store) -> Path:
    """Write a row of imported features for every frame of the store's subjects."""
    variant, random = find_features(store), np.random.default_rng(0)
    counts = {name: variant.last_frame(name) for name in variant.subjects}
    subject = np.repeat(list(counts), list(counts.values()))
    frame = np.concatenate([np.arange(1, count + 1) for count in counts.values()])
    np.savez(path, subject=subject, frame=frame, embedding=random.normal(size=(len(frame), 8)).astype(np.float32))
    return path


@pytest.mark.service
def test_results_on_s3_equal_those_of_a_local_store(data, tmp_path, s3_bucket, s3_workers, capsys):
    wanted = data / "names_of_videos_in_each_test_set" / ABAW3_TEST_LISTS["va"]
    stores = [str(tmp_path / "store"), f"{s3_bucket}/deep/store"]
    for store in stores:
        extract(data, store, dask_address=s3_workers)
        rows = write_features(tmp_path / "audio.npz", Store(store))
        assert import_features(ImportFeaturesParameters(rows, "audio", store, workers=1)) == 0
        fits = ({}, {"features_variant": "imported_audio", "features": "embeddings"})
        heads = [fit("va", store, data, seeds=1, dask_address=s3_workers, **options) for options in fits]
        blend = fit("va", store, data, blend=heads, dask_address=s3_workers)
        zip_path = submit("va", store, wanted, head=blend, dask_address=s3_workers)
        assert verify(VerifyParameters(zip_path, test_list=str(wanted), videos=str(data))) == 0
        assert print_status(StatusParameters(store)) == 0
    assert bytes_of(stores[1]) == read_results(Path(stores[0]))


@pytest.mark.service
def test_an_image_on_s3_is_predicted_and_forgotten_there(portraits, tmp_path, s3_bucket):
    image, out = location(f"{s3_bucket}/photos/ann.jpg"), f"{s3_bucket}/out"
    Image.fromarray(portraits[0]).save(tmp_path / "ann.jpg", quality=95)
    image.write_bytes((tmp_path / "ann.jpg").read_bytes())
    written = [
        score([place], folder, workers=1) for place, folder in ((image, out), (tmp_path / "ann.jpg", tmp_path / "out"))
    ]
    assert written[0] == [f"{out}/tables/images.parquet", f"{out}/tables/images.csv"]
    (row,), (local,) = (
        pq.read_table(io.BytesIO(location(one[0]).read_bytes())).drop_columns(["image"]).to_pylist() for one in written
    )
    assert row == local and row["face"] == 1
    assert forget(ForgetParameters([str(image)], f"{out}/store")) == 0
    image.fs.invalidate_cache()
    left = image.fs.cat(image.fs.find(location(out).path))
    assert left and [path for path, data in left.items() if b"ann.jpg" in data] == []


@pytest.mark.service
def test_a_report_on_s3_has_the_charts_of_a_local_one(tmp_path, s3_bucket):
    stores = [str(shutil.copytree(OLD_STORE, tmp_path / "store")), f"{s3_bucket}/store"]
    put(OLD_STORE, stores[1])
    charts = []
    for store in stores:
        write_store_report(ReportParameters(store))
        page = location(f"{store}/reports/store/index.html").read_text()
        items = json.loads(re.search(r'id="chart-items">(.*?)</script>', page, re.S)[1])
        charts.append([[root["name"] for root in item["doc"]["roots"]] for item in items])
    assert charts[0] == charts[1] and len(charts[0]) >= 12
