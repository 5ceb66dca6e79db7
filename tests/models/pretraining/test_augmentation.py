import numpy as np
import pytest
import torch
from PIL import Image

from models.pretraining.augmentation import augment, square_px
from models.pretraining.recipes import get_pretraining

STILL = get_pretraining("paper", "emotion").replace(flip=False)


@pytest.fixture(scope="module")
def squares(portraits):
    small = [np.asarray(Image.fromarray(p).resize((64, 64), Image.BILINEAR)) for p in portraits]
    return torch.from_numpy(np.stack(small * 8))


def augmented(squares, *, seed=0, input_px=64, **changes):
    generator = torch.Generator().manual_seed(seed)
    return augment(squares, STILL.replace(**changes), input_px=input_px, generator=generator)


def test_recipe_without_augmentation_keeps_images_unchanged(squares):
    assert torch.equal(augmented(squares), squares.float())
    assert square_px(STILL, input_px=224) == 224
    assert square_px(STILL.replace(smallest_crop=0.5), input_px=224) == 256


def test_about_half_of_the_images_are_flipped(squares):
    found = augmented(squares, flip=True)
    same = [torch.equal(a, b.float()) for a, b in zip(found, squares, strict=True)]
    mirrored = [torch.equal(a, b.float().flip(1)) for a, b in zip(found, squares, strict=True)]
    assert any(same) and any(mirrored) and all(s != m for s, m in zip(same, mirrored, strict=True))


def test_crops_lie_inside_the_image(squares):
    """Colours encode positions: crops lie inside, have at least the smallest share, and are moderately stretched."""
    ramp = torch.linspace(0, 255, 64)
    maps = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64), torch.zeros(64, 64)], dim=-1)
    found = augmented(maps.expand(40, -1, -1, -1), smallest_crop=0.25, stretch=1.2, input_px=48)
    assert found.shape == (40, 48, 48, 3) and found.min() >= 0 and found.max() <= 255
    width = (found[:, 24, -1, 0] - found[:, 24, 0, 0]) / 255 * 48 / 47
    height = (found[:, -1, 24, 1] - found[:, 0, 24, 1]) / 255 * 48 / 47
    area = width * height
    assert 0.22 < area.min() < 0.5 and 0.75 < area.max() <= 1.03
    assert (width / height).min() > 1 / 1.3 and (width / height).max() < 1.3
    left = found[:, 24, 0, 0]
    assert left.std() > 5, "crops come from all positions"


def test_rotations_go_both_ways(squares):
    ramp = torch.linspace(0, 255, 64).expand(64, 64)
    found = augmented(torch.stack([ramp] * 3, dim=-1).expand(60, -1, -1, -1), rotation_degrees=20, stretch=1.0)
    slope_x = found[:, 32, 40, 0] - found[:, 32, 24, 0]
    slope_y = found[:, 40, 32, 0] - found[:, 24, 32, 0]
    angle = torch.rad2deg(torch.atan2(slope_y, slope_x))
    assert -20.5 < angle.min() < -10 and 10 < angle.max() < 20.5


def test_some_images_are_blurred_and_brightness_varies(squares):
    def sharpness(x):
        return (x[:, :, 1:] - x[:, :, :-1]).abs().mean(dim=(1, 2, 3))

    ratio = sharpness(augmented(squares, blur=0.5)) / sharpness(squares.float())
    assert ((ratio > 0.999).sum() > 2) and ((ratio < 0.95).sum() > 2)
    lit = augmented(squares, jitter=0.4)
    brightness = lit.mean(dim=(1, 2, 3)) / squares.float().mean(dim=(1, 2, 3))
    assert brightness.min() < 0.9 and brightness.max() > 1.1


def test_generator_is_the_only_source_of_randomness(squares):
    recipe = {"smallest_crop": 0.6, "rotation_degrees": 15, "flip": True, "jitter": 0.3, "blur": 0.3}
    assert torch.equal(augmented(squares, **recipe), augmented(squares, **recipe))
    assert not torch.equal(augmented(squares, **recipe), augmented(squares, seed=1, **recipe))
