from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from models.engines.devices import default_device
from models.faces.detection import DetectorParams
from tasks import worker_models
from tasks.worker_models import get_backbone, get_detector, get_follower

pytestmark = pytest.mark.skipif(default_device() == "cuda", reason="on a GPU there is one engine")


@pytest.fixture
def fresh_models():
    for cached in (worker_models._load_detector, worker_models._load_backbone):
        cached.cache_clear()
    yield
    for cached in (worker_models._load_detector, worker_models._load_backbone):
        cached.cache_clear()


def test_networks_are_loaded_once():
    assert get_detector(DetectorParams()) is get_detector(DetectorParams())
    assert get_detector(DetectorParams()) is not get_detector(DetectorParams(min_face_px=80))
    assert get_backbone("emotion_lite0", None, "float32") is get_backbone("emotion_lite0", None, "float32")


def test_openvino_networks_belong_to_a_thread_and_torch_networks_are_shared(monkeypatch, fresh_models):
    """``dask worker`` without options has a thread per core; two units that share buffers would find wrong faces."""
    params = DetectorParams()
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(get_detector, params).result() is not get_detector(params)
        monkeypatch.setenv("AFFWILD2_ENGINE", "torch")
        assert thread.submit(get_detector, params).result() is get_detector(params)


def test_follower_depends_on_the_parameters():
    assert get_follower(DetectorParams()) is not None
    assert get_follower(DetectorParams(search_every_frames=1)) is None


def test_engine_torch_gives_equal_results(monkeypatch, fresh_models, portraits):
    fast = get_backbone("emotion_lite0", None, "float32").extract(portraits)[0]
    boxes = get_detector(DetectorParams()).detect(portraits[0][None])[0].box_xyxy_px
    worker_models._load_detector.cache_clear()
    worker_models._load_backbone.cache_clear()
    monkeypatch.setenv("AFFWILD2_ENGINE", "torch")
    plain = get_backbone("emotion_lite0", None, "float32")
    assert plain.engine == "torch on cpu, float32"
    np.testing.assert_allclose(plain.extract(portraits)[0], fast, atol=1e-3)
    np.testing.assert_allclose(
        get_detector(DetectorParams()).detect(portraits[0][None])[0].box_xyxy_px, boxes, atol=0.01
    )
    assert get_follower(DetectorParams()) is None
