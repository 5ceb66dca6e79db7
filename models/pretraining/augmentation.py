"""Augmentation of training images, one batch at a time on any device: crops, rotation, flips, light, blur."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from models.pretraining.recipes import PretrainingRecipe

# The published training resizes to 256 px and crops 224 px.
_LARGER = 256 / 224
_LUMINANCE = (0.299, 0.587, 0.114)
_BLUR_REACH_PX = 2
_BLUR_SIGMA_PX = (0.1, 2.0)
_Draw = Callable[[float, float], Tensor]


def square_px(recipe: PretrainingRecipe, *, input_px: int) -> int:
    """Return the side to which faces are resized first: larger than the network's input if crops are cut from them."""
    return round(input_px * _LARGER) if recipe.smallest_crop < 1 else input_px


def augment(squares: Tensor, recipe: PretrainingRecipe, *, input_px: int, generator: torch.Generator) -> Tensor:
    """Augment squares uint8 [n, s, s, 3]; return float32 [n, input_px, input_px, 3] in 0..255.

    ``generator``: a generator on the CPU, the only source of randomness on every device.
    """

    def draw(low: float, high: float) -> Tensor:
        """Draw one uniform random number per image."""
        return (torch.rand(len(squares), generator=generator) * (high - low) + low).to(squares.device)

    x = squares.permute(0, 3, 1, 2).float()
    is_flipped = draw(0, 1) < (0.5 if recipe.flip else 0)
    if recipe.smallest_crop < 1 or recipe.rotation_degrees:
        x = _crop_and_rotate(x, recipe, is_flipped, draw, input_px)
    else:
        x = torch.where(is_flipped[:, None, None, None], x.flip(3), x)
    if recipe.blur:
        x = _blur(x, recipe.blur, draw)
    if recipe.jitter:
        x = _jitter(x, recipe.jitter, draw)
    return x.clamp(0, 255).permute(0, 2, 3, 1)


def _crop_and_rotate(x: Tensor, recipe: PretrainingRecipe, is_flipped: Tensor, draw: _Draw, input_px: int) -> Tensor:
    """Cut out a random part and rotate it; pixels from outside the image repeat its border."""
    share, angle = draw(recipe.smallest_crop, 1), math.radians(recipe.rotation_degrees) * draw(-1, 1)
    stretch = math.log(recipe.stretch) * draw(-1, 1)
    width, height = ((share * torch.exp(s)).sqrt().clamp(max=1) for s in (stretch, -stretch))
    right, down = (draw(-1, 1) * (1 - side) for side in (width, height))
    width = torch.where(is_flipped, -width, width)
    rows = [
        torch.stack([angle.cos() * width, -angle.sin() * height, right], dim=1),
        torch.stack([angle.sin() * width, angle.cos() * height, down], dim=1),
    ]
    grid = functional.affine_grid(torch.stack(rows, dim=1), [len(x), 3, input_px, input_px], align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _blur(x: Tensor, share: float, draw: _Draw) -> Tensor:
    """Blur a share of the images with Gaussians of random width."""
    chosen = draw(0, 1) < share
    sigma = draw(*_BLUR_SIGMA_PX)[:, None]
    reach = torch.arange(-_BLUR_REACH_PX, _BLUR_REACH_PX + 1, device=x.device)
    kernel = torch.exp(-0.5 * (reach / sigma).square())
    kernel = torch.where(chosen[:, None], kernel / kernel.sum(dim=1, keepdim=True), (reach == 0).float())
    count, _, height, width = x.shape
    kernel = kernel.repeat_interleave(3, dim=0)
    rows = functional.pad(x.reshape(1, 3 * count, height, width), [_BLUR_REACH_PX] * 4, mode="reflect")
    rows = functional.conv2d(rows, kernel[:, None, None, :], groups=3 * count)
    rows = functional.conv2d(rows, kernel[:, None, :, None], groups=3 * count)
    return rows.reshape(x.shape)


def _jitter(x: Tensor, jitter: float, draw: _Draw) -> Tensor:
    """Change contrast (around the image's mean), brightness and saturation, each by up to ``jitter``."""
    contrast, brightness, saturation = (draw(1 - jitter, 1 + jitter)[:, None, None, None] for _ in range(3))
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = ((x - mean) * contrast + mean) * brightness
    grey = (x * torch.tensor(_LUMINANCE, device=x.device).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    return grey + (x - grey) * saturation
