import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_contracts.store.fingerprint import canonical_json, digest_of_file, fingerprint, variant_name


@dataclass(frozen=True)
class Params:
    size: int = 1
    names: tuple[str, ...] = ("a",)


@dataclass(frozen=True)
class ParamsLater:
    size: int = 1
    names: tuple[str, ...] = ("a",)
    step: int = 4

    def fingerprint_fields(self):
        # Versions without the field had a step of 1.
        return {"size": self.size, "names": self.names} | ({} if self.step == 1 else {"step": self.step})


@dataclass(frozen=True)
class Outer:
    params: ParamsLater


def test_field_added_later_is_left_out_while_it_has_the_value_from_before():
    assert fingerprint(a=ParamsLater(step=1)) == fingerprint(a=Params())
    assert canonical_json([Outer(ParamsLater(step=1))]) == '[{"params":{"names":["a"],"size":1}}]'
    assert len({fingerprint(a=a) for a in (Params(), ParamsLater(), ParamsLater(step=2))}) == 3


def test_equal_values_have_equal_fingerprints():
    assert fingerprint(a=1, b=Params()) == fingerprint(b=Params(names=("a",)), a=1)
    assert fingerprint(a=Params()) != fingerprint(a=Params(size=2))
    assert fingerprint(a=1) != fingerprint(b=1)


def test_canonical_json_and_its_hash():
    assert canonical_json({"b": (1, 2.5), "a": None}) == '{"a":null,"b":[1,2.5]}'
    assert fingerprint(a=1) == hashlib.sha256(b'{"a":1}').hexdigest()


def test_values_without_canonical_json_are_refused():
    with pytest.raises(TypeError):
        fingerprint(a=Path("x"))
    with pytest.raises(ValueError):
        fingerprint(a=float("nan"))


def test_file_digest_and_variant_name(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"x" * 3_000_000)
    assert digest_of_file(path) == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    assert variant_name("mtcnn", "0123456789ab") == "mtcnn-01234567"
