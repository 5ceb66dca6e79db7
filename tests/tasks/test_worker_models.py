from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from models.engines.devices import default_device
from models.faces.detection import DetectorParams
from tasks import worker_models
from tasks.worker_models import follow_faces, get_backbone, get_detector

pytestmark = pytest.mark.skipif(default_device() == "cuda", reason="on a GPU there is one engine")


@pytest.fixture
def fresh_models():
    for cached in (worker_models._detector, worker_models._backbone):
        cached.cache_clear()
    yield
    for cached in (worker_models._detector, worker_models._backbone):
        cached.cache_clear()


def test_each_is_loaded_once():
    assert get_detector(DetectorParams()) is get_detector(DetectorParams())
    assert get_detector(DetectorParams()) is not get_detector(DetectorParams(min_face_px=80))
    assert get_backbone("emotion_lite0", None, "float32") is get_backbone("emotion_lite0", None, "float32")


def test_threads_of_one_worker_have_their_own_and_torchs_are_shared(monkeypatch, fresh_models):
    """``dask worker`` without options has a thread per core; buffers that two units write to give wrong faces."""
    params = DetectorParams()
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(get_detector, params).result() is not get_detector(params)
        monkeypatch.setenv("AFFWILD2_ENGINE", "torch")
        assert thread.submit(get_detector, params).result() is get_detector(params)


def test_following_is_for_those_who_want_it():
    assert follow_faces(DetectorParams()) is not None
    assert follow_faces(DetectorParams(search_every_frames=1)) is None


def test_torch_does_the_same_if_chosen(monkeypatch, fresh_models, portraits):
    fast = get_backbone("emotion_lite0", None, "float32").extract(portraits)[0]
    boxes = get_detector(DetectorParams()).detect(portraits[0][None])[0].box_xyxy_px
    worker_models._detector.cache_clear()
    worker_models._backbone.cache_clear()
    monkeypatch.setenv("AFFWILD2_ENGINE", "torch")
    plain = get_backbone("emotion_lite0", None, "float32")
    assert plain.engine == "torch on cpu, float32"
    np.testing.assert_allclose(plain.extract(portraits)[0], fast, atol=1e-3)
    np.testing.assert_allclose(
        get_detector(DetectorParams()).detect(portraits[0][None])[0].box_xyxy_px, boxes, atol=0.01
    )
    assert follow_faces(DetectorParams()) is None
