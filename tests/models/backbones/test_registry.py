import pytest

from models.backbones.registry import REGISTRY, get_spec


def test_registry_holds_the_published_settings():
    assert {name: (s.input_px, s.embedding_size) for name, s in REGISTRY.items()} == {
        "emotion_lite0": (144, 1280),
        "efficientnet_lite0": (224, 1280),
        "tf_efficientnet_b0": (224, 1280),
        "tf_efficientnet_b2": (260, 1408),
        "mobilenet_v1": (224, 1024),
        **dict.fromkeys(("enet_b0_8_best_vgaf", "enet_b0_8_best_afew", "enet_b0_8_va_mtl"), (224, 1280)),
        **dict.fromkeys(("enet_b2_7", "enet_b2_8", "enet_b2_8_best"), (260, 1408)),
        "mobilenet_7": (224, 1024),
        "vggface2_enet0": (224, 1280),
        "vggface2_enet2": (260, 1408),
    }
    assert REGISTRY["mobilenet_v1"].mean == (103.939, 116.779, 123.68)


def test_metadata_replaces_known_fields_only():
    assert get_spec("tf_efficientnet_b0").with_metadata({"mean": [0, 0, 0]}).mean == (0, 0, 0)
    with pytest.raises(ValueError, match="got colour"):
        get_spec("tf_efficientnet_b0").with_metadata({"colour": 1})
    with pytest.raises(ValueError, match="expected an input"):
        get_spec("tf_efficientnet_b0").with_metadata({"input_px": 1})


def test_metadata_names_added_fields_only_where_they_differ():
    """Else the files of EfficientNets, and so the fingerprints of their features, would change."""
    assert list(get_spec("enet_b2_8").metadata(("scale", "input_px"))) == ["scale", "input_px"]
    found = get_spec("mobilenet_7").metadata(("input_px",))
    assert found == {"input_px": 224, "interpolation": "opencv_bilinear", "published_scores": "probabilities"}
    assert get_spec("mobilenet_v1").with_metadata(found).interpolation == "opencv_bilinear"


@pytest.mark.parametrize("field", ["interpolation", "published_scores"])
def test_unknown_values_are_refused(field):
    with pytest.raises(ValueError, match=f"expected {field} .* or .*, got 'bicubic'"):
        get_spec("mobilenet_v1").with_metadata({field: "bicubic"})
