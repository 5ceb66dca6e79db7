"""Varying training pictures, a batch at a time and on any device: parts, turns, mirroring, light, blur."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from models.pretraining.recipes import PretrainingRecipe

# As the published 256 px before parts of 224 px are cut.
_LARGER = 256 / 224
_LUMINANCE = (0.299, 0.587, 0.114)
_BLUR_REACH_PX = 2
_BLUR_SIGMA_PX = (0.1, 2.0)


def square_px(recipe: PretrainingRecipe, *, input_px: int) -> int:
    """Side to which faces are squeezed first: larger than the network's input if parts are cut from it."""
    return round(input_px * _LARGER) if recipe.smallest_crop < 1 else input_px


def vary_pictures(squares: Tensor, recipe: PretrainingRecipe, *, input_px: int, generator: torch.Generator) -> Tensor:
    """Squares uint8 [n, s, s, 3] as training shows them: float32 [n, input_px, input_px, 3] in 0..255.

    ``generator``: on the CPU; its state alone decides, whatever the device of the pictures.
    """
    draw = _Draw(len(squares), squares.device, generator)
    x = squares.permute(0, 3, 1, 2).float()
    mirrored = draw.uniform(0, 1) < 0.5 if recipe.flip else draw.uniform(0, 1) < 0
    if recipe.smallest_crop < 1 or recipe.rotation_degrees:
        x = _cut(x, recipe, mirrored, draw, input_px)
    else:
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    if recipe.blur:
        x = _blurred(x, recipe.blur, draw)
    if recipe.jitter:
        x = _relit(x, recipe.jitter, draw)
    return x.clamp(0, 255).permute(0, 2, 3, 1)


class _Draw:
    """Uniform random numbers, one per picture."""

    def __init__(self, count: int, device: torch.device, generator: torch.Generator) -> None:
        self._count, self._device, self._generator = count, device, generator

    def uniform(self, low: float, high: float) -> Tensor:
        drawn = torch.rand(self._count, generator=self._generator) * (high - low) + low
        return drawn.to(self._device)


def _cut(x: Tensor, recipe: PretrainingRecipe, mirrored: Tensor, draw: _Draw, input_px: int) -> Tensor:
    """A random part, turned; what a turn brings in from outside repeats the border."""
    share, angle = draw.uniform(recipe.smallest_crop, 1), math.radians(recipe.rotation_degrees) * draw.uniform(-1, 1)
    stretch = math.log(recipe.stretch) * draw.uniform(-1, 1)
    width, height = ((share * torch.exp(s)).sqrt().clamp(max=1) for s in (stretch, -stretch))
    right, down = (draw.uniform(-1, 1) * (1 - side) for side in (width, height))
    width = torch.where(mirrored, -width, width)
    rows = [
        torch.stack([angle.cos() * width, -angle.sin() * height, right], dim=1),
        torch.stack([angle.sin() * width, angle.cos() * height, down], dim=1),
    ]
    grid = functional.affine_grid(torch.stack(rows, dim=1), [len(x), 3, input_px, input_px], align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _blurred(x: Tensor, share: float, draw: _Draw) -> Tensor:
    """A Gaussian over some of the pictures, of a width of each one's own."""
    chosen = draw.uniform(0, 1) < share
    sigma = draw.uniform(*_BLUR_SIGMA_PX)[:, None]
    reach = torch.arange(-_BLUR_REACH_PX, _BLUR_REACH_PX + 1, device=x.device)
    kernel = torch.exp(-0.5 * (reach / sigma).square())
    kernel = torch.where(chosen[:, None], kernel / kernel.sum(dim=1, keepdim=True), (reach == 0).float())
    count, _, height, width = x.shape
    kernel = kernel.repeat_interleave(3, dim=0)
    rows = x.reshape(1, 3 * count, height, width)
    pad = [_BLUR_REACH_PX] * 4
    rows = functional.pad(rows, pad, mode="reflect")
    rows = functional.conv2d(rows, kernel[:, None, None, :], groups=3 * count)
    rows = functional.conv2d(rows, kernel[:, None, :, None], groups=3 * count)
    return rows.reshape(x.shape)


def _relit(x: Tensor, jitter: float, draw: _Draw) -> Tensor:
    """Contrast about the picture's mean, brightness, and (of colours) saturation, each by up to ``jitter``."""
    contrast, brightness, saturation = (draw.uniform(1 - jitter, 1 + jitter)[:, None, None, None] for _ in range(3))
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = ((x - mean) * contrast + mean) * brightness
    grey = (x * torch.tensor(_LUMINANCE, device=x.device).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    return grey + (x - grey) * saturation
