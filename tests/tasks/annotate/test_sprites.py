import av
import numpy as np
from PIL import Image

from tasks.annotate.mp4 import new_frame, planes_of
from tasks.annotate.sprites import Place, Sprite, fill, to_yuv


def frame_of(level=100):
    planes = [np.full((40, 60), level, np.uint8), *(np.full((20, 30), 128, np.uint8) for _ in range(2))]
    return new_frame(av.VideoFrame(60, 40, "yuv420p"), planes)


def test_colours_are_those_of_the_converter_of_frames():
    for colorspace in (1, 5):
        frame = av.VideoFrame.from_ndarray(np.full((4, 4, 3), (213, 94, 0), np.uint8), format="rgb24")
        wanted = frame.reformat(format="yuv420p", dst_colorspace=colorspace, dst_color_range="MPEG")
        yuv = to_yuv(np.array([213, 94, 0], np.float32), colorspace)
        assert np.abs(yuv - [plane[0, 0] for plane in planes_of(wanted)]).max() < 1.5


def test_a_sprite_is_blended_by_its_opacity_and_cut_at_the_border():
    picture = Image.new("RGBA", (8, 8), (255, 255, 255, 255))
    picture.paste((255, 255, 255, 128), (0, 0, 4, 8))
    sprite = Sprite.of_picture(picture, 5)
    for left, top in ((10, 10), (-4, -4), (56, 36), (100, 100)):
        frame = frame_of()
        planes = planes_of(frame)
        sprite.draw(planes, left, top)
        changed = np.argwhere(planes[0] != 100)
        if left == 10:
            assert changed.min(axis=0).tolist() == [10, 10] and changed.max(axis=0).tolist() == [17, 17]
            assert planes[0][12, 12] == round(100 + (235 - 100) * 128 / 255) and planes[0][12, 16] == 235
        elif left == 100:
            assert len(changed) == 0
        else:
            assert len(changed) == 16


def test_rectangles_are_cut_at_the_border():
    planes = planes_of(frame_of())
    fill(planes, Place(-10, -10, 4, 4), np.array([50, 60, 70], np.float32))
    assert (planes[0] == 50).sum() == 16 and (planes[1] == 60).sum() == 4 and (planes[2] == 70).sum() == 4
    fill(planes, Place(70, 50, 80, 60), np.array([1, 1, 1], np.float32))
    fill(planes, Place(-9, -9, -3, -3), np.array([1, 1, 1], np.float32))
    assert not any((plane == 1).any() for plane in planes)


def test_frames_get_even_sides_by_repeating_the_border():
    planes = [np.arange(35, dtype=np.uint8).reshape(5, 7), *(np.zeros((3, 4), np.uint8) for _ in range(2))]
    shown = planes_of(new_frame(av.VideoFrame(8, 6, "yuv420p"), planes))[0]
    assert shown.shape == (6, 8) and shown[5, 7] == planes[0][4, 6] and (shown[:5, :7] == planes[0]).all()
