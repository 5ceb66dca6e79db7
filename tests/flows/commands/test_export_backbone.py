import pytest
from PIL import Image

from data_contracts.errors import InputError
from flows.commands.export_backbone import export_models
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
