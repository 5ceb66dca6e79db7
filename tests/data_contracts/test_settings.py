import subprocess
import sys
from pathlib import Path

import pytest

from data_contracts.errors import InputError
from data_contracts.settings import Settings, VideoLimits, read_settings

VARIABLES = {
    "AFFWILD2_CACHE": ("/tmp/cache", {"cache": Path("/tmp/cache")}),
    "AFFWILD2_DASK_ADDRESS": ("tcp://scheduler:8786", {"dask_address": "tcp://scheduler:8786"}),
    "AFFWILD2_ENGINE": ("torch", {"engine": "torch"}),
    "AFFWILD2_LOG_FORMAT": ("json", {"log_format": "json"}),
    "AFFWILD2_METRICS": ("https://gateway:9091/", {"metrics": "https://gateway:9091"}),
    "AFFWILD2_METRICS_AUTH": ("lab:a:b", {"metrics_auth": "lab:a:b"}),
    "AFFWILD2_PATIENCE_SECONDS": ("2.5", {"s3_timeout_seconds": 2.5, "cluster_timeout_seconds": 2.5}),
    "AFFWILD2_VIDEO_LIMITS": ("hours=24, pixels=2e8", {"video_limits": VideoLimits(hours=24, pixels=2e8)}),
    "AFFWILD2_SERVE_URL": ("http://127.0.0.1:8420/", {"serve_url": "http://127.0.0.1:8420"}),
    "AFFWILD2_WEIGHTS_URL": ("http://mirror:81/", {"weights_url": "http://mirror:81"}),
}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_defaults_apply_to_variables_that_are_missing_or_empty(monkeypatch):
    assert read_settings() == Settings()
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
    assert read_settings() == Settings()
    assert read_settings().cache_folder.name == "affwild2"


@pytest.mark.parametrize("name", VARIABLES)
def test_each_variable_changes_its_settings(name, monkeypatch):
    text, changed = VARIABLES[name]
    monkeypatch.setenv(name, text)
    assert read_settings() == Settings(**changed)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("AFFWILD2_ENGINE", "openvina", "expected one of openvino, torch, got 'openvina'"),
        ("AFFWILD2_LOG_FORMAT", "JSON", "expected one of text, json, got 'JSON'"),
        *(
            ("AFFWILD2_METRICS", text, f"expected a folder, or the URL of a Pushgateway .*got '{text}'")
            for text in ("s3://bucket/metrics", "gateway://host", "https://")
        ),
        ("AFFWILD2_METRICS_AUTH", "secret", "expected USER:PASSWORD, got a value without a colon$"),
        *(
            ("AFFWILD2_PATIENCE_SECONDS", text, f"expected a number of seconds above 0, got '{text}'")
            for text in ("0", "-3", "soon", "inf", "nan")
        ),
        *(
            ("AFFWILD2_VIDEO_LIMITS", text, f"expected numbers above 0 for pixels, frames, .*got '{text}'")
            for text in ("pixels", "width=3", "hours=0", "hours=x", "hours=inf")
        ),
        *(
            ("AFFWILD2_DASK_ADDRESS", text, f"expected the address of a Dask scheduler such as .*got '{shown}'")
            for text, shown in {"scheduler:8786": "scheduler:8786", "u:p@h": r"\*\*\*@h", " ": " "}.items()
        ),
        ("AFFWILD2_SERVE_URL", "8420", "expected a URL with http:// or https://, got '8420'"),
        ("AFFWILD2_WEIGHTS_URL", "mirror", "expected a URL with http:// or https://, got 'mirror'"),
    ],
)
def test_an_invalid_value_is_one_line(name, text, expected, monkeypatch):
    monkeypatch.setenv(name, text)
    with pytest.raises(InputError, match=f"^{name}: {expected}"):
        read_settings()


def test_settings_import_quickly():
    code = (
        "import sys, data_contracts.settings; print(sorted({'pydantic', 'platformdirs', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_documentation_lists_every_variable():
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    assert [name for name in VARIABLES if f"| `{name}` |" not in text] == []


@pytest.mark.parametrize("url", ["http://lab:secret@gateway:9091", "http://gateway:9091?token=secret"])
def test_a_url_of_metrics_with_a_password_is_refused_without_showing_it(url, monkeypatch):
    monkeypatch.setenv("AFFWILD2_METRICS", url)
    with pytest.raises(InputError, match=r"set AFFWILD2_METRICS_AUTH=USER:PASSWORD$") as raised:
        read_settings()
    assert "secret" not in str(raised.value)
    monkeypatch.setenv("AFFWILD2_METRICS", "http://gateway:9091")
    monkeypatch.setenv("AFFWILD2_METRICS_AUTH", "lab:secret")
    assert "secret" not in repr(read_settings())
