import av
import numpy as np
import pytest
import torch

from data_contracts.video_pictures import HostPictures
from models.device_pictures import DevicePictures, rgb_of_nv12


def frame_of(luma, u, v, *, matrix, color_range):
    frame = av.VideoFrame(luma.shape[1], luma.shape[0], "yuv420p")
    for plane, values in zip(frame.planes, (luma, u, v), strict=True):
        np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:, : values.shape[1]] = values
    frame.colorspace, frame.color_range = matrix, color_range
    return frame


def samples(height, width):
    """Every value of luma beside many of colour."""
    generator = np.random.default_rng(0)
    sizes = ((height, width), (height // 2, width // 2), (height // 2, width // 2))
    return [generator.integers(0, 256, size, dtype=np.uint8) for size in sizes]


@pytest.mark.parametrize("color_range", [0, 1, 2])
@pytest.mark.parametrize("matrix", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14])
def test_the_pixels_that_ffmpeg_makes(matrix, color_range):
    luma, u, v = samples(64, 322)
    expected = HostPictures(0).upright_rgb(frame_of(luma, u, v, matrix=matrix, color_range=color_range))
    chroma = torch.from_numpy(np.stack([u, v], axis=2))
    got = rgb_of_nv12(torch.from_numpy(luma), chroma, matrix=matrix, color_range=color_range)
    np.testing.assert_array_equal(got.numpy(), expected)


def test_all_levels_of_colour():
    luma = np.tile(np.arange(256, dtype=np.uint8), (512, 2))
    u, v = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    expected = HostPictures(0).upright_rgb(frame_of(luma, u, v, matrix=1, color_range=1))
    got = rgb_of_nv12(torch.from_numpy(luma), torch.from_numpy(np.stack([u, v], 2)), matrix=1, color_range=1)
    np.testing.assert_array_equal(got.numpy(), expected)


def test_what_the_gpu_does_not_decode_is_not_asked_of_it():
    pictures = DevicePictures(0, on_device=False, by_processor=HostPictures(0).upright_rgb)
    assert pictures.hwaccel is None
    asked = DevicePictures(0, on_device=True, by_processor=HostPictures(0).upright_rgb).hwaccel
    assert asked.is_hw_owned and asked.allow_software_fallback
