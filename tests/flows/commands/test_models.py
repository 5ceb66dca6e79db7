import json
from pathlib import Path

from click.testing import CliRunner

from flows.commands.command_line import app


def run_command(*arguments):
    """Run a command in this process, which has imported the modules already."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_list_and_wrong_requests(tmp_path, monkeypatch):
    monkeypatch.setenv("AFFWILD2_CACHE", str(tmp_path))
    monkeypatch.setenv("AFFWILD2_WEIGHTS_URL", "http://127.0.0.1:9")
    listed = run_command("models", "list")
    assert listed.exit_code == 0
    for text in ("emotion_lite0", "bundled", "enet_b0_8_va_mtl", "61.93 / 64.94", "mbf_va_mtl.onnx", "Apache-2.0"):
        assert text in listed.stdout
    assert "not stated │ ImageNet, VGGFace2, AffectNet │ no" in listed.stdout
    widths = [len(line.rstrip()) for line in listed.stdout.splitlines() if str(tmp_path) not in line]
    assert max(widths) <= 80
    typo = run_command("models", "fetch", "enet_b0")
    assert typo.exit_code == 2 and len(typo.stderr.strip().splitlines()) == 1 and "enet_b0_8_best_vgaf" in typo.stderr
    offline = run_command("models", "fetch", "enet_b2_8")
    assert offline.exit_code == 2 and len(offline.stderr.strip().splitlines()) == 1
    assert "models/affectnet_emotions/enet_b2_8.pt" in offline.stderr and str(tmp_path) in offline.stderr
    missing = run_command("extract", Path(__file__).parent, "--store", tmp_path / "s", "--backbone", "enet_b2_8")
    assert missing.exit_code == 2 and "expected" in missing.stderr


def test_the_list_as_json_and_as_names(tmp_path, monkeypatch):
    monkeypatch.setenv("AFFWILD2_CACHE", str(tmp_path))
    listed = run_command("models", "list", "--json")
    models = json.loads(listed.stdout)
    assert list(models) == ["command", "version", "backbones", "published", "licences", "folder"]
    assert not listed.stderr and models["command"] == "models list" and models["folder"].startswith(str(tmp_path))
    bundled = models["backbones"][0]
    assert list(bundled) == ["name", "input_px", "embedding_size", "classes", "affectnet_accuracy", "installed"]
    assert (
        bundled["name"] == "emotion_lite0" and bundled["installed"] == "bundled" and "Happiness" in bundled["classes"]
    )
    assert {"network", "weights", "trained_on", "commercial_use"} == set(models["licences"][0])
    assert {"name", "kind", "commercial_use", "installed"} == set(models["published"][0])
    names = run_command("models", "list", "--quiet").stdout.split()
    assert names == [one["name"] for one in models["backbones"]]
