import json

import pytest

from data_contracts.errors import InputError
from flows.parameters import FitParameters
from models.recipes.registry import RECIPES
from tasks.recipe_files import load_recipe
from tests.flows.commands.test_models import run_command


def test_list_and_show(tmp_path):
    listed = run_command("recipes")
    assert listed.exit_code == 0 and all(name in listed.stdout for name in RECIPES)
    assert [one["name"] for one in json.loads(run_command("recipes", "--json").stdout)["recipes"]] == list(RECIPES)
    shown = run_command("recipes", "show", "default", "--task", "expr")
    saved = tmp_path / "saved.toml"
    saved.write_text(shown.stdout)
    assert run_command("recipes", "show", saved).stdout == shown.stdout
    saved.write_text(shown.stdout.replace("dropout = 0.5", "dropout = 0.25"))
    changed = run_command("recipes", "show", saved)
    assert changed.exit_code == 2 and "expected another name than default" in changed.stderr
    saved.write_text(shown.stdout.replace('"default"', '"mine"'))
    missing = run_command("recipes", "show", saved, "--task", "va")
    assert missing.exit_code == 2 and "recipe mine has settings of expr" in missing.stderr


def test_wrong_names_and_files_are_refused_in_one_line(tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_bytes(b"\xff\xfe")
    for name in ("nonsense", str(tmp_path / "none.toml"), str(bad)):
        refused = run_command("recipes", "show", name)
        assert refused.exit_code == 2 and len(refused.stderr.strip().splitlines()) == 1 and name in refused.stderr
    with pytest.raises(InputError, match=r"expected recipe paper, default.*, or a TOML file"):
        load_recipe("defaults")


def test_a_form_makes_the_path_of_a_file_absolute(tmp_path, monkeypatch):
    from pydantic import TypeAdapter, ValidationError

    monkeypatch.chdir(tmp_path)
    form = TypeAdapter(FitParameters)
    given = {"task": "va", "store": "s", "annotations": "a"}
    assert form.validate_python(given | {"recipe": "my.toml"}).recipe == str(tmp_path / "my.toml")
    assert form.validate_python(given | {"recipe": "paper"}).recipe == "paper"
    for wrong in ("defaults", "ftp://host/my.toml"):
        with pytest.raises((InputError, ValidationError), match="expected"):
            form.validate_python(given | {"recipe": wrong})
