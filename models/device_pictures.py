"""Video frames that a GPU's own decoder has decoded, as RGB on that GPU, with the pixels that FFmpeg makes elsewhere.

What decodes H.264, HEVC and the like gives no other samples than a processor does: standards leave no choice. FFmpeg
turns them into RGB in whole numbers (libswscale, ``yuv2rgb.c`` and its vector code); so does this.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from av.codec.hwaccel import HWAccel
from av.video.frame import VideoFrame
from torch import Tensor

# What red has of V, blue of U, green of U and of V, times 65536: ITU-T H.264 table E-5 by its numbers of matrices, as
# libswscale rounds it.
_BT601 = (104597, 132201, -25675, -53279)
_MATRICES = {
    1: (117489, 138438, -13975, -34925),
    4: (104448, 132798, -24759, -53109),
    7: (117579, 136230, -16907, -35559),
    9: (110013, 140363, -12277, -42626),
}
_FULL_RANGE = 2
# Three bits more than a byte, thirteen of a factor: a product's upper half is a level of colour.
_BITS, _PRODUCT_BITS = 3, 16


def rgb_of_nv12(luma: Tensor, chroma: Tensor, *, matrix: int, color_range: int) -> Tensor:
    """RGB uint8 [H, W, 3] of luma uint8 [H, W] and chroma uint8 [H / 2, W / 2, 2] (U, V), sides even.

    ``matrix`` and ``color_range`` are FFmpeg's numbers (``AVColorSpace``, ``AVColorRange``). What it does not convert
    counts as unspecified, which is BT.601; a range that is not said to be full is 16 .. 235.
    """
    red_v, blue_u, green_u, green_v = _MATRICES.get(matrix, _BT601)
    black, contrast = 16, (1 << 16) * 255 // 219
    if color_range == _FULL_RANGE:
        black, contrast = 0, 1 << 16
        red_v, blue_u, green_u, green_v = (int(factor * 224 / 255) for factor in (red_v, blue_u, green_u, green_v))
    light = (luma.int() - black) * ((_rounded(contrast)) << _BITS) >> _PRODUCT_BITS
    factors = torch.tensor(
        [[0, _rounded(green_u), _rounded(blue_u)], [_rounded(red_v), _rounded(green_v), 0]],
        dtype=torch.int32,
        device=luma.device,
    )
    colour = ((chroma.int() - 128 << _BITS)[..., None] * factors >> _PRODUCT_BITS).sum(2, dtype=torch.int32)
    rows, columns = colour.shape[:2]
    whole = light.view(rows, 2, columns, 2, 1) + colour.view(rows, 1, columns, 1, 3)
    return whole.clamp(0, 255).to(torch.uint8).view(2 * rows, 2 * columns, 3)


def _rounded(factor: int) -> int:
    """A factor of 16 binary places with 13."""
    return (factor * (1 << 13) + (1 << 15)) >> 16


class DevicePictures:
    """Frames decoded on a GPU where it can, else by the processor; tensors on the GPU."""

    def __init__(self, degrees: int, *, on_device: bool, by_processor: Callable[[VideoFrame], np.ndarray]) -> None:
        """``by_processor``: upright RGB of a frame that the processor decoded; ``on_device``: not all are."""
        self._turns, self._on_device, self._by_processor = degrees // 90, on_device, by_processor

    @property
    def hwaccel(self) -> HWAccel | None:
        """The GPU's decoder in torch's own context; None where the processor is to decode."""
        # A file's decoder may find that it cannot: then the processor's takes its place.
        return HWAccel("cuda", is_hw_owned=True) if self._on_device else None

    def upright_rgb(self, frame: VideoFrame) -> Tensor:
        """A frame as uint8 [height, width, 3] on the GPU, turned clockwise."""
        if frame.format.name != "cuda":
            return torch.from_numpy(np.ascontiguousarray(self._by_processor(frame))).cuda()
        luma, chroma = (torch.from_dlpack(plane.__dlpack__()) for plane in frame.planes)
        rgb = rgb_of_nv12(luma, chroma, matrix=int(frame.colorspace), color_range=int(frame.color_range))
        # The decoder takes a frame's memory back as soon as nobody holds it.
        torch.cuda.current_stream().synchronize()
        return torch.rot90(rgb, k=-self._turns)

    def room(self, count: int, shape: tuple[int, ...]) -> Tensor:
        """Memory on the GPU for ``count`` pictures of that shape."""
        return torch.empty((count, *shape), dtype=torch.uint8, device="cuda")

    def on_host(self, parts: Sequence[Tensor]) -> list[np.ndarray]:
        """Parts of pictures as arrays; all are on their way before the first is waited for."""
        copies = [part.contiguous().to("cpu", non_blocking=True) for part in parts]
        torch.cuda.current_stream().synchronize()
        return [copy.numpy() for copy in copies]
