import io

import numpy as np
import pytest
from PIL import Image

from models.faces import crops
from models.faces.crops import clip_box, crop_face, decode_jpeg, encode_jpeg, shrink_to


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((1.2, 2.9, 10.1, 20.0), (1, 2, 11, 20)),
        ((-5, -5, 3, 3), (0, 0, 3, 3)),
        ((90, 40, 120, 60), (90, 40, 100, 50)),
        ((100, 0, 120, 10), None),
        ((5, 5, 5, 9), None),
    ],
)
def test_clip_box(box, expected):
    assert clip_box(np.array(box), width=100, height=50) == expected


def test_crop_shows_the_box():
    frame = np.arange(50 * 100 * 3, dtype=np.uint8).reshape(50, 100, 3)
    assert (crop_face(frame, np.array([10, 5, 20, 25.0])) == frame[5:25, 10:20]).all()
    assert crop_face(frame, np.array([10, 5, 20, 25.0]), margin_fraction=0.5).shape == (35, 20, 3)
    assert crop_face(frame, np.array([200, 5, 220, 25.0])) is None


def test_shrink_only_when_larger():
    image = np.zeros((100, 50, 3), np.uint8)
    assert shrink_to(image, max_side_px=100) is image
    assert shrink_to(image, max_side_px=40).shape == (40, 20, 3)


def test_jpeg_round_trip_is_close(portraits):
    image = portraits[0][:200, :150]
    assert np.abs(decode_jpeg(encode_jpeg(image)).astype(int) - image).mean() < 2


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_modes_become_rgb(mode):
    buffer = io.BytesIO()
    Image.new(mode, (20, 10)).save(buffer, "JPEG")
    assert decode_jpeg(buffer.getvalue()).shape == (10, 20, 3)


def jpeg_of(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def test_decoding_equals_pillow(portraits):
    image = Image.fromarray(portraits[0][:211, :173])
    files = [encode_jpeg(portraits[1][:90, :77]), encode_jpeg(portraits[1][:1, :1])]
    files += [jpeg_of(image, quality=80, subsampling=s, progressive=p) for s in (0, 1, 2) for p in (False, True)]
    files += [jpeg_of(image.convert(mode)) for mode in ("L", "CMYK")]
    for file in files:
        np.testing.assert_array_equal(decode_jpeg(file), crops._decode_with_pillow(file))


@pytest.mark.parametrize("cut", [2, 30, 2000, -700, -2])
def test_truncated_jpeg_is_refused_as_by_pillow(portraits, cut):
    file = encode_jpeg(portraits[0][:90, :77])[:cut]
    with pytest.raises(ValueError, match="expected a whole JPEG") as ours:
        decode_jpeg(file)
    with pytest.raises(ValueError, match="expected a whole JPEG") as pillows:
        crops._decode_with_pillow(file)
    assert str(ours.value) == str(pillows.value)


def test_misplaced_end_marker_decodes_as_in_pillow(portraits):
    whole = encode_jpeg(portraits[0][:90, :77])
    damaged = whole[:1500] + whole[-2:]
    try:
        expected = crops._decode_with_pillow(damaged)
    except ValueError:
        with pytest.raises(ValueError, match="expected a whole JPEG"):
            decode_jpeg(damaged)
    else:
        np.testing.assert_array_equal(decode_jpeg(damaged), expected)


def test_damaged_jpeg_is_refused(portraits):
    data = encode_jpeg(portraits[0])
    png = io.BytesIO()
    Image.new("RGB", (5, 5)).save(png, "PNG")
    for broken in (b"", b"text", data[: len(data) // 2], png.getvalue()):
        with pytest.raises(ValueError, match="expected a whole JPEG"):
            decode_jpeg(broken)


def test_enormous_images_are_refused():
    buffer = io.BytesIO()
    Image.new("L", (20_000, 10_000)).save(buffer, "JPEG")
    with pytest.raises(ValueError, match="enormous"):
        decode_jpeg(buffer.getvalue())
