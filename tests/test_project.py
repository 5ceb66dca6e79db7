import importlib.util
import json
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_version_is_the_installed_one():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == version("affwild2")


def test_locks_carry_hashes_and_no_hosts():
    for name in ("requirements.lock", "requirements-uv.lock", "requirements-audit.lock"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        blocks = re.split(r"\n(?=\S)", text.strip())
        assert all("--hash=sha256:" in block for block in blocks)


def test_the_lock_of_npm_carries_hashes_and_no_hosts():
    text = (ROOT / "tasks" / "web" / "package-lock.json").read_text()
    assert "://" not in text
    packages = [entry for name, entry in json.loads(text)["packages"].items() if name]
    assert len(packages) > 5 and all(entry["integrity"].startswith("sha512-") for entry in packages)


def test_the_default_environment_has_no_pandas():
    # pyarrow imports pandas wherever it is installed, for a second in every process.
    assert importlib.util.find_spec("pandas") is None, "run make clean: this environment is from an older lock"


def test_changelog_has_what_is_not_released():
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text()


def test_readme_begins_with_two_commands():
    commands = re.findall(r"^make (\w+)$", (ROOT / "README.md").read_text(), re.M)
    assert commands[:2] == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{name}:", makefile, re.M) for name in commands)
