import re
import subprocess

import pytest

from models.backbones.registry import REGISTRY, UNKNOWN_IDENTITY
from models.weight_files.catalogue import (
    CATALOGUE,
    ORIGINS,
    find_by_blob_id,
    find_published,
    git_blob_id,
    published_for,
)


def test_every_entry_is_complete():
    ids = [entry.blob_id for entry in CATALOGUE.values()]
    assert len(CATALOGUE) == 18 and len(set(ids)) == 18
    for entry in CATALOGUE.values():
        assert re.fullmatch(r"[0-9a-f]{40}", entry.blob_id) and entry.path.startswith("models/")
        assert find_by_blob_id(entry.blob_id) is entry
        if entry.is_convertible:
            assert published_for(entry.backbone) is entry and not REGISTRY[entry.backbone].bundled


def test_both_origins_have_the_same_paths():
    assert [url.split("/")[3:] for url in ORIGINS] == [
        ["av-savchenko", "face-emotion-recognition", "main"],
        ["sb-ai-lab", "EmotiEffLib", "main"],
    ]


def test_a_backbone_names_its_published_weights():
    assert find_published("vggface2_enet0") is CATALOGUE["state_vggface2_enet0_new"]


def test_specs_match_the_published_networks():
    assert REGISTRY["enet_b0_8_va_mtl"].class_names[-2:] == ("valence", "arousal")
    assert len(REGISTRY["enet_b2_7"].class_names) == len(REGISTRY["mobilenet_7"].class_names) == 7
    assert REGISTRY["vggface2_enet2"].class_names == (UNKNOWN_IDENTITY,)
    assert REGISTRY["enet_b2_8"].input_px == 260


def test_blob_id_equals_git_hash_object(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(range(256)) * 9)
    expected = subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True).stdout.strip()
    assert git_blob_id(path) == expected


def test_unknown_name_lists_known_names():
    with pytest.raises(ValueError, match=r"mobilenet_7, .*got 'typo'"):
        find_published("typo")
