import re
from pathlib import Path

import pytest
from PIL import Image

from data_contracts.errors import InputError
from flows.commands.exports import export_heads, export_models
from flows.commands.parameters import ExportHeadParameters
from flows.commands.parameters import ExportModelParameters as Parameters


@pytest.mark.service
def test_export_writes_files_and_prints_a_table(tmp_path, portraits, capsys):
    Image.fromarray(portraits[0]).save(tmp_path / "face.png")
    code = export_models(Parameters("emotion_lite0", formats=["onnx"], out=tmp_path / "out", pictures=tmp_path))
    printed = capsys.readouterr().out
    assert code == 0 and "times torch" in printed and "1 pictures of" in printed
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "emotion_lite0.onnx", "emotion_lite0.onnx.preprocessing.json"
    ]  # fmt: skip


def test_wrong_requests_are_reported_in_one_line(tmp_path):
    with pytest.raises(InputError, match="expected one of onnx, onnx-int8, openvino, executorch, got 'tflite'"):
        export_models(Parameters("emotion_lite0", formats=["tflite"], out=tmp_path))
    with pytest.raises(InputError, match="expected pictures of faces"):
        export_models(Parameters("emotion_lite0", formats=["onnx"], out=tmp_path, pictures=tmp_path))
    with pytest.raises(InputError, match="expected one of"):
        export_models(Parameters("typo", formats=["onnx"], out=tmp_path))


STORE = Path(__file__).parents[2] / "data" / "store_34a2ed4" / "store"


@pytest.mark.service
def test_a_head_of_a_store_is_exported(tmp_path, capsys):
    assert export_heads(ExportHeadParameters("expr", str(STORE), tmp_path / "out")) == 0
    printed = capsys.readouterr().out
    assert float(re.search(r"differ by at most (\S+) from", printed)[1]) < 1e-5
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["expr-default-2f76ae44.onnx", "expr-default-2f76ae44.onnx.json"]


def test_an_unknown_head_is_reported_in_one_line(tmp_path):
    with pytest.raises(InputError, match="typo"):
        export_heads(ExportHeadParameters("typo", str(STORE), tmp_path))
    with pytest.raises(InputError, match="expected a store"):
        export_heads(ExportHeadParameters("expr", str(tmp_path), tmp_path / "out"))
