import numpy as np
import pytest
import torch

from models.backbones.network import load_backbone
from models.engines.batch_size import BatchSize
from models.faces.mtcnn import FaceDetector


def run_up_to(most):
    """Return a function that raises out-of-memory errors for more than ``most`` items."""

    def run(block):
        if block.stop - block.start > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return list(range(block.start, block.stop))

    return run


@pytest.mark.parametrize(("size", "most", "ends_as"), [(8, 8, 8), (8, 3, 2), (8, 1, 1), (1 << 60, 3, 2)])
def test_batches_that_do_not_fit_are_halved_permanently(size, most, ends_as):
    batch = BatchSize(size, is_padded=False)
    found = [number for _, block in batch.run_batches(11, run_up_to(most)) for number in block]
    assert found == list(range(11)) and batch.size == ends_as
    assert next(block.stop - block.start for block, _ in batch.run_batches(11, run_up_to(most))) == min(ends_as, 11)


def test_single_item_that_does_not_fit_raises():
    with pytest.raises(MemoryError, match="too little memory for one image"):
        list(BatchSize(4, is_padded=False).run_batches(2, run_up_to(0)))


def test_other_errors_are_not_caught():
    def run(block):
        raise FloatingPointError("overflow")

    with pytest.raises(FloatingPointError):
        list(BatchSize(4, is_padded=True).run_batches(2, run))


def test_backbone_and_detector_give_equal_results_with_less_memory(portraits, monkeypatch):
    backbone, detector = load_backbone("emotion_lite0"), FaceDetector()
    frames = np.stack([portraits[0]] * 3)
    embeddings, boxes = backbone.extract(portraits)[0], detector.detect(frames)

    def run_few(run, most):
        def run_or_fail(values, *rest):
            if len(values) > most:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return run(values, *rest)

        return run_or_fail

    monkeypatch.setattr(backbone, "_run", run_few(backbone._run, 4))
    monkeypatch.setattr(detector, "_cascade", run_few(detector._cascade, 1))
    detector._batch = BatchSize(64, is_padded=False)
    np.testing.assert_allclose(backbone.extract(portraits)[0], embeddings, atol=1e-4)
    for found, expected in zip(detector.detect(frames), boxes, strict=True):
        np.testing.assert_allclose(found.box_xyxy_px, expected.box_xyxy_px, atol=1e-3)
    assert backbone._batch.size == 4 and detector._batch.size == 1
