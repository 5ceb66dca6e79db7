"""Pictures of every mode and orientation become the RGB that a viewer displays."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from models.faces.pictures import displayed_rgb, has_exif, is_plain

GREY = np.linspace(0, 255, 24 * 16).astype(np.uint8).reshape(16, 24)
RGB = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=-1)
WIDE = GREY.astype(np.uint16) * 257
RED = Image.new("RGB", (24, 16), (200, 30, 20))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return displayed_rgb(image)


def is_plain_file(data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as image:
        return is_plain(image)


def with_orientation(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = number
    return exif


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(kind: str, orientation: int) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(Image.fromarray(RGB), kind, exif=with_orientation(orientation), **options)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    got = read(data)
    assert got.shape == ((16, 24, 3) if orientation < 5 else (24, 16, 3))
    np.testing.assert_array_equal(got, expected)
    assert is_plain_file(data) == (orientation == 1)
    assert has_exif(data) or kind != "JPEG"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_data_lose_no_picture() -> None:
    plain = saved(RED, "JPEG", quality=100)
    data = saved(RED, "JPEG", quality=100, exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(40))
    np.testing.assert_array_equal(read(data), read(plain))
    assert is_plain_file(data) and has_exif(data) and not has_exif(plain)


def big_endian_tiff() -> bytes:
    return saved(Image.frombytes("I;16B", (24, 16), WIDE.astype(">u2").tobytes()), "TIFF")


GREYS: dict[str, Callable[[], bytes]] = {
    "16 bits PNG": lambda: saved(Image.fromarray(WIDE), "PNG"),
    "16 bits TIFF": lambda: saved(Image.fromarray(WIDE), "TIFF"),
    "16 bits big-endian": big_endian_tiff,
    "32 bits": lambda: saved(Image.fromarray(WIDE.astype(np.int32)), "TIFF"),
    "32 bits up to 255": lambda: saved(Image.fromarray(GREY.astype(np.int32)), "TIFF"),
    "float up to 1": lambda: saved(Image.fromarray((GREY / 255).astype(np.float32)), "TIFF"),
    "float up to 255": lambda: saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"),
    "float up to 65535": lambda: saved(Image.fromarray(WIDE.astype(np.float32)), "TIFF"),
}


@pytest.mark.parametrize("name", GREYS)
def test_more_than_8_bits_are_scaled(name: str) -> None:
    data = GREYS[name]()
    np.testing.assert_array_equal(read(data), np.repeat(GREY[..., None], 3, axis=2))
    assert not is_plain_file(data)


def test_a_dark_16_bit_picture_stays_dark() -> None:
    assert read(saved(Image.fromarray(WIDE // 16), "PNG")).max() == 16


def test_unknown_and_negative_numbers_are_black() -> None:
    values = np.array([[np.nan, -1.0, np.inf, 0.5, 1.0]], np.float32)
    assert read(saved(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 0, 0, 128, 255]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind: str) -> None:
    """JPEG files with CMYK are inverted, as Adobe writes them."""
    got = read(saved(RED.convert("CMYK"), kind, **({"quality": 100} if kind == "JPEG" else {})))
    np.testing.assert_allclose(got, np.asarray(RED), atol=3)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_white(mode: str) -> None:
    pixels = np.zeros((16, 24, 4), np.uint8)
    pixels[:, 8:16, 3], pixels[:, 16:, 3] = 128, 255
    data = saved(Image.fromarray(pixels).convert(mode), "PNG")
    assert [read(data)[0, column].tolist() for column in (0, 12, 20)] == [[255] * 3, [127] * 3, [0] * 3]
    assert not is_plain_file(data)


def test_palette_with_and_without_a_transparent_color() -> None:
    palette = Image.fromarray(GREY // 128 * 255).convert("P")
    opaque, transparent = saved(palette, "PNG"), saved(palette, "PNG", transparency=0)
    assert read(opaque)[0, 0].tolist() == [0, 0, 0] and read(opaque)[-1, -1].tolist() == [255] * 3
    assert read(transparent).min() == 255
    assert is_plain_file(opaque) and not is_plain_file(transparent)


def test_one_bit() -> None:
    data = saved(Image.fromarray(GREY > 127), "PNG")
    assert np.unique(read(data)).tolist() == [0, 255] and is_plain_file(data)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_read(kind: str) -> None:
    black, white = (Image.new("RGB", (24, 16), color) for color in ("black", "white"))
    assert read(saved(black, kind, save_all=True, append_images=[white])).max() < 10


def test_color_profiles_are_ignored() -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    np.testing.assert_array_equal(read(saved(Image.fromarray(RGB), "PNG", icc_profile=profile)), RGB)
