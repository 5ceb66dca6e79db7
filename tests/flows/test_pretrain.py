import pytest
from PIL import Image

from data_contracts.errors import InputError
from data_contracts.store import Store
from flows.pretrain import pretrain

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
    assert "epoch 13 of 13" in printed and "balanced accuracy" in printed and "use it: affwild2 extract" in printed
    assert sorted(Store(store).list_folder(f"backbones/{name}")) == [
        "backbone.safetensors", "curves.png", "manifest.json", "metrics.json"
    ]  # fmt: skip
    assert pretrain("emotion", labels, store, input_px=32, dask_address=dask_address) == name
    assert "epoch" not in capsys.readouterr().out, "what is there is not trained again"


def test_wrong_requests_are_one_line(labels, tmp_path):
    with pytest.raises(InputError, match="expected a CSV file"):
        pretrain("emotion", tmp_path / "typo.csv", str(tmp_path / "store"))
    with pytest.raises(InputError, match="no weights are bundled"):
        pretrain("emotion", labels, str(tmp_path / "store"), backbone="tf_efficientnet_b0")
