import pytest

from data_contracts.store.manifest import (
    Failure,
    Manifest,
    UnitKey,
    from_sealed_json,
    is_failure_path,
    key_of_manifest_path,
    to_sealed_json,
)


@pytest.mark.parametrize("value", ["plain", "40-30-1280x720", "a/b", "..", "ü", "x=y", "_left", "%2F"])
def test_paths_lead_back_to_the_key(value):
    key = UnitKey("faces", (("source", "s"), ("video", value)), value)
    assert key_of_manifest_path(key.manifest_path) == key
    assert key_of_manifest_path(key.failure_path) == key
    assert is_failure_path(key.failure_path) and not is_failure_path(key.manifest_path)
    assert ".." not in key.folder.split("/")


@pytest.mark.parametrize("path", ["faces/part-0-ab.parquet", "_manifest-0.json", "heads/x/_manifest-0.json"])
def test_other_files_are_not_manifests(path):
    assert key_of_manifest_path(path) is None


def test_json_round_trip_and_garbage():
    manifest = Manifest("f", "i", "p", 1, 2, {"face": 2}, 0.5, {"frame_count": 2})
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert Manifest.from_json(b"[]") is None and Manifest.from_json(b'{"x": 1}') is None
    assert Failure.from_json(Failure("f", "why").to_json()) == Failure("f", "why")
    assert Failure.from_json(b"") is None
    noted = Failure("f", "why", tries=2, since="2026-11-28T03:00:00Z", files=("a.mp4",))
    assert Failure.from_json(noted.to_json()) == noted
    of_earlier_version = to_sealed_json({"fingerprint": "f", "cause": "why", "tries": 3})
    assert Failure.from_json(of_earlier_version) == Failure("f", "why", tries=0), "it counted faults of the machine"


def test_text_of_a_key_is_readable():
    assert str(UnitKey("faces", (("source", "s-1"), ("video", "clip")), "00002")) == "clip part 00002"
    with pytest.raises(KeyError):
        UnitKey("faces").value("video")


SEALED = {"rows": 3, "details": {"ü": [1, None], "path": "a\udcff"}}


def test_sealed_json_returns_what_was_sealed():
    assert from_sealed_json(to_sealed_json(SEALED)) == SEALED


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b'"rows": 3', b'"rows": 4'),
        lambda data: data.replace(b'"rows": 3,', b""),
        lambda data: data.replace(b'"seal"', b'"other"'),
        lambda data: data[:-5],
        lambda data: b"[" * 100_000,
        lambda data: b"[1]",
        lambda data: b"",
    ],
)
def test_sealed_json_that_was_edited_is_rejected(change):
    assert from_sealed_json(change(to_sealed_json(SEALED))) is None
