import pytest

from data_contracts.store.sealed_json import from_sealed_json, to_sealed_json

VALUES = {"rows": 3, "details": {"ü": [1, None], "path": "a\udcff"}}


def test_comes_back_as_it_was():
    assert from_sealed_json(to_sealed_json(VALUES)) == VALUES


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
def test_what_was_edited_is_not_believed(change):
    assert from_sealed_json(change(to_sealed_json(VALUES))) is None
