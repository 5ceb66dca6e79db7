import pytest
from PIL import Image
from prefect.settings import PREFECT_API_URL

from data_contracts.errors import InputError
from data_contracts.store import Store
from flows.pretrain import pretrain
from flows.run import SomeFailedError
from tests.faults.disturbances import disturb

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def labels(tmp_path, portraits):
    """Two people, twelve pictures each: parts of their portraits."""
    lines = ["image,identity,expression"]
    for name, portrait, expression in zip("ab", portraits, ("neutral", "happiness"), strict=True):
        height, width = portrait.shape[:2]
        for shift in range(24):
            part = portrait[shift : height - shift, shift : width - shift]
            Image.fromarray(part).save(tmp_path / f"{name}{shift}.jpg")
            lines.append(f"{name}{shift}.jpg,{name}{shift},{expression}")
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_from_pictures_to_a_backbone_and_again(labels, tmp_path, dask_address, capsys):
    store = str(tmp_path / "store")
    name = pretrain("emotion", labels, store, input_px=32, dask_address=dask_address)
    printed = capsys.readouterr().out
    assert "epoch 12 of 12" in printed and "balanced accuracy" in printed and "use it: affwild2 extract" in printed
    assert sorted(Store(store).list_folder(f"backbones/{name}")) == [
        "backbone.safetensors", "curves.png", "manifest.json", "metrics.json"
    ]  # fmt: skip
    assert pretrain("emotion", labels, store, input_px=32, dask_address=dask_address) == name
    assert "epoch" not in capsys.readouterr().out, "what is there is not trained again"


def test_killed_in_training_the_next_run_goes_on_to_the_same_weights(
    labels, tmp_path, dask_address, capsys, monkeypatch
):
    """The whole command, by kill -9, once it has written a checkpoint."""
    whole, store = tmp_path / "whole", tmp_path / "store"
    name = pretrain("emotion", labels, str(whole), input_px=32, dask_address=dask_address)
    arguments = ["pretrain", "emotion", str(labels), "--store", str(store), "--input-px", "32", "--workers", "1"]
    ended = disturb(
        arguments, store, dataset="backbones", units=1, victim="command", server_url=PREFECT_API_URL.value()
    )
    assert ended.code == -9 and ended.orphans == [], ended
    assert not (store / "backbones" / name / "manifest.json").exists()
    capsys.readouterr()
    assert pretrain("emotion", labels, str(store), input_px=32, dask_address=dask_address) == name
    assert "goes on in epoch" in capsys.readouterr().out
    weights = [(s / "backbones" / name / "backbone.safetensors").read_bytes() for s in (whole, store)]
    assert weights[0] == weights[1]


def test_people_who_are_not_learnt_from(labels, tmp_path, dask_address):
    """Still measured, if they are among the validation people; a name that nobody has is a mistake."""
    store, names = str(tmp_path / "store"), [f"a{number}" for number in range(24)]
    with pytest.raises(SomeFailedError, match="two classes with 10 pictures, got"):
        pretrain("emotion", labels, store, input_px=32, untrained=names, dask_address=dask_address)
    with pytest.raises(SomeFailedError, match="expected people of the pictures, got typo"):
        pretrain("emotion", labels, store, input_px=32, untrained=["typo"], dask_address=dask_address)


def test_wrong_requests_are_one_line(labels, tmp_path):
    with pytest.raises(InputError, match="expected a CSV file"):
        pretrain("emotion", tmp_path / "typo.csv", str(tmp_path / "store"))
    with pytest.raises(InputError, match="no weights are bundled"):
        pretrain("emotion", labels, str(tmp_path / "store"), backbone="tf_efficientnet_b0")
