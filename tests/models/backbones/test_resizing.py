import hashlib
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image

from data_contracts.store.fingerprint import fingerprint
from models.backbones.registry import REGISTRY
from models.backbones.resizing import resize_to_square

# Height and width of a picture, side of the square, digits of the sha256 of cv2.resize: OpenCV 4.14 and 5.0 agree.
OPENCV = [
    (60, 50, 224, "c29b115895a68bb1"),
    (224, 224, 224, "1480adfb7462aa30"),
    (320, 280, 224, "8478d86faadf2945"),
    (448, 448, 224, "ee6747534805fe0e"),
    (448, 300, 224, "585ea11d2658f3ca"),
    (1, 7, 32, "61f193342af42148"),
    (700, 512, 224, "dad00fee93ee1530"),
    (112, 180, 260, "e78e20c564ce95a8"),
]


@pytest.fixture(scope="module")
def picture():
    with Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png") as image:
        return np.tile(np.asarray(image.convert("RGB")), (2, 1, 1))


@pytest.mark.parametrize(("height", "width", "size", "digest"), OPENCV)
def test_opencv_bilinear_has_the_bytes_of_opencv(picture, height, width, size, digest):
    found = resize_to_square(picture[:height, :width], size, "opencv_bilinear")
    assert found.shape == (size, size, 3) and found.dtype == np.uint8
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == digest


@pytest.mark.service
def test_opencv_bilinear_equals_opencv_for_any_size(picture):
    import cv2

    rng = np.random.default_rng(0)
    for _ in range(300):
        height, width, size = (int(side) for side in rng.integers((1, 1, 32), (701, 513, 301)))
        for image in (picture[:height, :width], rng.integers(0, 256, (height, width, 3), np.uint8)):
            expected = cv2.resize(np.ascontiguousarray(image), (size, size))
            found = resize_to_square(image, size, "opencv_bilinear")
            np.testing.assert_array_equal(found, expected, err_msg=f"{image.shape} to {size}")


def test_filters_differ_where_a_face_is_shrunk(picture):
    face = picture[:320, :320].astype(int)
    ours, published = (resize_to_square(face.astype(np.uint8), 112, f) for f in ("bilinear", "opencv_bilinear"))
    assert np.abs(ours.astype(int) - published).mean() > 2


def test_only_mobilenets_are_resized_by_opencv_and_publish_probabilities():
    special = {n for n, s in REGISTRY.items() if (s.interpolation, s.published_scores) != ("bilinear", "logits")}
    assert special == {"mobilenet_v1", "mobilenet_7"}
    assert {(s.interpolation, s.published_scores) for n, s in REGISTRY.items() if n in special} == {
        ("opencv_bilinear", "probabilities")
    }


def test_features_of_other_backbones_keep_their_fingerprints():
    """The digits are those of the version that resized the faces of every backbone by Pillow."""
    known = {
        "emotion_lite0": "d3631558",
        "tf_efficientnet_b0": "caf0a4c9",
        "tf_efficientnet_b2": "f7fb0218",
        "enet_b0_8_best_vgaf": "2320d45e",
        "enet_b2_8": "5dd7637d",
    }
    assert {name: fingerprint(spec=REGISTRY[name])[:8] for name in known} == known
    assert fingerprint(spec=REGISTRY["mobilenet_7"])[:8] != "5fe8d048"
