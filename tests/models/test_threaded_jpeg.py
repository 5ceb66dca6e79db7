import io

import numpy as np
import pytest
from PIL import Image

from models import crops
from models.crops import encode_jpeg
from models.threaded_jpeg import decode_jpeg


def jpeg_of(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def test_the_same_bytes_as_pillow(portraits):
    image = Image.fromarray(portraits[0][:211, :173])
    files = [encode_jpeg(portraits[1][:90, :77])]
    files += [jpeg_of(image, quality=80, subsampling=s, progressive=p) for s in (0, 1, 2) for p in (False, True)]
    files += [jpeg_of(image.convert(mode)) for mode in ("L", "CMYK")]
    for file in files:
        np.testing.assert_array_equal(decode_jpeg(file), crops.decode_jpeg(file))


@pytest.mark.parametrize("cut", [2, 30, 2000, -700, -2])
def test_what_is_cut_short_is_refused_alike(portraits, cut):
    file = encode_jpeg(portraits[0][:90, :77])[:cut]
    with pytest.raises(ValueError, match="expected a whole JPEG") as ours:
        decode_jpeg(file)
    with pytest.raises(ValueError, match="expected a whole JPEG") as pillows:
        crops.decode_jpeg(file)
    assert str(ours.value) == str(pillows.value)


def test_the_end_in_the_wrong_place_gives_what_pillow_gives(portraits):
    whole = encode_jpeg(portraits[0][:90, :77])
    damaged = whole[:1500] + whole[-2:]
    try:
        expected = crops.decode_jpeg(damaged)
    except ValueError:
        with pytest.raises(ValueError, match="expected a whole JPEG"):
            decode_jpeg(damaged)
    else:
        np.testing.assert_array_equal(decode_jpeg(damaged), expected)
