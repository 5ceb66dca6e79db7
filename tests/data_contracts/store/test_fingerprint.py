import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_contracts.store.fingerprint import added_field, canonical_json, digest_of_file, fingerprint, variant_name


@dataclass(frozen=True)
class Params:
    size: int = 1
    names: tuple[str, ...] = ("a",)


@dataclass(frozen=True)
class ParamsLater:
    size: int = 1
    names: tuple[str, ...] = ("a",)
    step: int = added_field(4, before=1)
    limit: float | None = added_field(None, before=None)


@dataclass(frozen=True)
class Outer:
    params: ParamsLater


def test_added_field_with_its_value_from_before_keeps_the_fingerprint():
    assert fingerprint(a=ParamsLater(step=1)) == fingerprint(a=Params())
    assert canonical_json([Outer(ParamsLater(step=1))]) == '[{"params":{"names":["a"],"size":1}}]'


def test_added_field_with_another_value_changes_the_fingerprint():
    found = {
        fingerprint(a=a) for a in (Params(), ParamsLater(), ParamsLater(step=1, limit=2.0), ParamsLater(step=True))
    }
    assert len(found) == 4


def test_equal_values_equal_fingerprint():
    assert fingerprint(a=1, b=Params()) == fingerprint(b=Params(names=("a",)), a=1)
    assert fingerprint(a=Params()) != fingerprint(a=Params(size=2))
    assert fingerprint(a=1) != fingerprint(b=1)


def test_known_value():
    assert canonical_json({"b": (1, 2.5), "a": None}) == '{"a":null,"b":[1,2.5]}'
    assert fingerprint(a=1) == hashlib.sha256(b'{"a":1}').hexdigest()


def test_values_without_canonical_form_are_refused():
    with pytest.raises(TypeError):
        fingerprint(a=Path("x"))
    with pytest.raises(ValueError):
        fingerprint(a=float("nan"))


def test_file_digest_and_variant(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"x" * 3_000_000)
    assert digest_of_file(path) == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    assert variant_name("mtcnn", "0123456789ab") == "mtcnn-01234567"
