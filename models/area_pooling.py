"""Area pooling of many picture windows at once, from one integral image per frame.

MTCNN shrinks pictures by adaptive average pooling (`torch.nn.functional.interpolate(mode="area")`): output cell i of n
over a side of length s averages the pixels from floor(i*s/n) to ceil((i+1)*s/n). With an integral image each such
average is four loads, whatever the size of the window, and it stays exact: the sums are integers.

Here: the integral image and the pooling. Not here: which windows to pool, networks, resizing for backbones (those
use PIL's filters, which are a different average).
"""

import numpy as np
import torch
from torch import Tensor

# MTCNN's networks were trained on (value - 127.5) / 128 (Zhang et al. 2016, arXiv 1604.02878, as facenet-pytorch ships it).
PIXEL_CENTRE = 127.5
PIXEL_SCALE = 1 / 128


def integral_image(frames: np.ndarray, *, device: torch.device) -> Tensor:
    """Sums of all pixels above and to the left, for every pixel corner and channel.

    frames: uint8 [B, H, W, 3]. Returns int32 [B, H+1, W+1, 3] on `device`; entry [b, y, x] is the sum over
    frames[b, :y, :x]. Past 2^31 (a bright frame of more than 8.4 megapixels) the entries wrap around, and
    differences between them stay right because they wrap back.
    """
    batch, height, width, channels = frames.shape
    if device.type == "cpu":
        # Adding whole rows runs at memory speed; a cumulative sum down the columns walks memory in long strides
        # and takes ten times as long at 1080p.
        sums = np.empty((batch, height + 1, width + 1, channels), dtype=np.int32)
        sums[:, 0] = 0
        sums[:, :, 0] = 0
        for y in range(height):
            np.add(sums[:, y, 1:], frames[:, y], out=sums[:, y + 1, 1:])
        return torch.from_numpy(sums).cumsum_(dim=2)
    pixels = torch.from_numpy(frames if frames.flags.writeable else frames.copy()).to(device)
    integral = torch.zeros((batch, height + 1, width + 1, channels), dtype=torch.int32, device=device)
    integral[:, 1:, 1:] = pixels.cumsum(dim=1, dtype=torch.int32).cumsum_(dim=2)
    return integral


def pool_windows(integral: Tensor, *, frame_index: Tensor, windows_xyxy_px: Tensor, height: int, width: int) -> Tensor:
    """Averages each window down (or up) to height x width cells and normalises the values for MTCNN's networks.

    integral: int32 [B, H+1, W+1, 3] of `integral_image`. frame_index: int64 [n], below B. windows_xyxy_px: int64
    [n, 4], half-open, not empty, inside the frame. Both may lie on another device than the integral. Returns float32
    [n, 3, height, width] in channels-last memory, values in [-127.5/128, 127.5/128]; equal to the last bit to
    `interpolate(mode="area")` of the float32 crop as long as a cell's sum is below 2^24 (256 x 256 px per cell).
    """
    _, rows, columns, channels = integral.shape
    frame_index, windows = frame_index.to(integral.device), windows_xyxy_px.to(integral.device)
    top, bottom = _cell_edges(windows[:, 1], windows[:, 3], height)
    left, right = _cell_edges(windows[:, 0], windows[:, 2], width)
    flat = integral.view(-1, channels)
    frame_start = (frame_index * rows)[:, None]

    def corners(y: Tensor, x: Tensor) -> Tensor:
        index = ((frame_start + y) * columns)[:, :, None] + x[:, None, :]
        return flat.index_select(0, index.flatten())

    sums = corners(bottom, right).sub_(corners(top, right)).sub_(corners(bottom, left)).add_(corners(top, left))
    means = sums.view(len(windows), height, width, channels).float()
    # Two divisions, in this order: what torch's own pooling does, so the last bit agrees.
    means.div_((bottom - top)[:, :, None, None]).div_((right - left)[:, None, :, None])
    return means.sub_(PIXEL_CENTRE).mul_(PIXEL_SCALE).permute(0, 3, 1, 2)


def _cell_edges(start: Tensor, stop: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """First and one-past-last pixel of each of `cells` pooling cells; neighbours may share one pixel. int64 [n, cells]."""
    index = torch.arange(cells, device=start.device)
    side = (stop - start)[:, None]
    first = (index * side).div(cells, rounding_mode="floor")
    past_last = ((index + 1) * side + cells - 1).div(cells, rounding_mode="floor")
    return start[:, None] + first, start[:, None] + past_last
