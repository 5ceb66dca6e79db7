import pytest
from PIL import Image

from data_contracts.errors import InputError
from data_contracts.store.store import Store
from flows.engine.run_results import SomeFailedError
from flows.pretrain import pretrain
from tests.faults.interruptions import interrupt
from tests.processes import run_command


@pytest.fixture(scope="module")
def labels(tmp_path_factory, portraits):
    """A labels file for two people with sixteen pictures each, cut from their portraits."""
    tmp_path = tmp_path_factory.mktemp("labelled")
    lines = ["image,identity,expression"]
    for name, portrait, expression in zip("ab", portraits, ("neutral", "happiness"), strict=True):
        height, width = portrait.shape[:2]
        for shift in range(16):
            part = portrait[shift : height - shift, shift : width - shift]
            Image.fromarray(part).resize((160, 180)).save(tmp_path / f"{name}{shift}.jpg")  # small: quick to search
            lines.append(f"{name}{shift}.jpg,{name}{shift},{expression}")
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def command(labels, store):
    return ["pretrain", "emotion", str(labels), "--store", str(store), "--input-px", "32", "--workers", "1"]


@pytest.fixture(scope="module")
def trained(labels, tmp_path_factory):
    """Store and output of a training without interruptions."""
    store = tmp_path_factory.mktemp("trained") / "store"
    finished = run_command(*command(labels, store))
    assert finished.returncode == 0, finished.stderr
    return store, finished.stdout


def weights_in(store):
    (path,) = store.glob("backbones/*/backbone.safetensors")
    return path.read_bytes()


def test_a_second_training_reuses_the_backbone_and_extract_accepts_it(trained, labels, dask_address, capsys):
    store, printed = trained
    assert "epoch 12 of 12" in printed and "balanced accuracy" in printed and "use it: affwild2 extract" in printed
    name = pretrain("emotion", labels, str(store), input_px=32, dask_address=dask_address)
    assert "epoch" not in capsys.readouterr().out, "an existing backbone is not trained again"
    assert sorted(Store(str(store)).list_folder(f"backbones/{name}")) == [
        "backbone.safetensors", "curves.png", "manifest.json", "metrics.json"
    ]  # fmt: skip


def test_people_in_both_sets_are_reported(labels, tmp_path, dask_address, capsys):
    """The training itself fails: nobody is left."""
    people = tuple(f"{name}{shift}" for name in "ab" for shift in range(16))
    options = {"validation": labels, "untrained": people, "dask_address": dask_address}
    with pytest.raises(SomeFailedError):
        pretrain("emotion", labels, str(tmp_path / "store"), **options)
    printed = capsys.readouterr().out
    line = f"warning: people of {labels} that are in {labels} too: a0, a1, a10, ... (32); their validation pictures"
    assert line in printed


@pytest.mark.service
def test_a_killed_training_resumes_to_the_same_weights(trained, labels, tmp_path):
    """Kill the command with kill -9 after its first checkpoint."""
    store = tmp_path / "store"
    ended = interrupt(command(labels, store), store, dataset="backbones", units=1, victim="command")
    assert ended.code == -9 and ended.orphans == [], ended
    assert list(store.glob("backbones/*/manifest.json")) == []
    resumed = run_command(*command(labels, store))
    assert resumed.returncode == 0 and "resuming in epoch" in resumed.stdout
    assert weights_in(store) == weights_in(trained[0])


def test_wrong_requests_are_reported_in_one_line(labels, tmp_path):
    with pytest.raises(InputError, match="expected a CSV file"):
        pretrain("emotion", tmp_path / "typo.csv", str(tmp_path / "store"))
    with pytest.raises(InputError, match="no weights are bundled"):
        pretrain("emotion", labels, str(tmp_path / "store"), backbone="tf_efficientnet_b0")
    with pytest.raises(InputError, match="--untrained: expected the goal emotion, got identity"):
        pretrain("identity", labels, str(tmp_path / "store"), untrained=["a1"])
    with pytest.raises(InputError, match=r"--images: expected a CSV file that names these pictures, got .*; leave"):
        pretrain("identity", labels.parent, str(tmp_path / "store"), images=tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"--untrained: expected people in .*labels\.csv, found no picture of typo"):
        pretrain("emotion", labels, str(tmp_path / "store"), untrained=["a1", "typo"])
