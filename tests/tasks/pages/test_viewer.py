"""Viewers of generated videos in a real browser: charts, seeking, keys, hover, dark mode, phones, accessibility."""

import http.server
import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from data_contracts.files.locations import location
from data_contracts.store.store import Store
from data_contracts.video.packets import index_video
from data_contracts.vocabulary import ACTION_UNITS, EXPRESSIONS
from models.faces.crops import encode_jpeg
from tasks.pages.media import Media, find_media
from tasks.pages.thumbnails import TILE_PX, Strip
from tasks.pages.timeline import BranchValues, PersonTimeline, Timeline
from tasks.pages.viewer import folder_of_viewer, write_viewer
from tests.video_factory import VideoSpec, read_number, write_video

pytestmark = pytest.mark.service

FRAMES = 60
STEPS = np.random.default_rng(0).integers(200, 1200, FRAMES)
UNEVEN_TICKS = tuple((np.cumsum(STEPS) - STEPS[0]).tolist())
STRIP_FRAMES = (1, 21, 41, 60)


def make_person(number, first=1, frames=FRAMES, **values):
    """Return a person without a face in every tenth frame; valence falls from 1 to -1, classes follow one another."""
    count = np.arange(frames)
    kinds = (count // 3 + number) % len(EXPRESSIONS)
    p = np.full((frames, len(EXPRESSIONS)), 0.04, np.float32)
    p[count, kinds] = 0.72
    units = np.stack([(count + row) % 12 < 3 for row in range(len(ACTION_UNITS))], axis=1)
    smoothed = {
        "expr": BranchValues(kinds[:, None].astype(np.float32), p),
        "va": BranchValues(np.stack([np.linspace(1, -1, frames), np.sin(count)], axis=1).astype(np.float32)),
        "au": BranchValues(units.astype(np.float32), (0.1 + 0.8 * units).astype(np.float32)),
    }
    boxes = np.tile(np.float32([10, 5, 60, 55]), (frames, 1))
    return PersonTimeline(number, None, first, count % 10 != 9, boxes, smoothed, **values)


def make_page(folder, index=None, media=None, persons=None, name="clip"):
    """Write the viewer of a video and return its path."""
    store = Store(str(folder))
    raw = {"va": BranchValues(np.full((FRAMES, 2), 0.5, np.float32))}
    labels = {"expr": BranchValues(np.full((FRAMES, 1), EXPRESSIONS.index("Fear"), np.float32))}
    persons = persons or [make_person(1, raw=raw, labels=labels), make_person(2, first=21, frames=20)]
    seconds = index.pts_seconds if index else np.arange(FRAMES) / 25
    timeline = Timeline(name, FRAMES, seconds, persons, "generated", ["va: none"])
    tiles = np.repeat(np.linspace(0, 255, len(STRIP_FRAMES), dtype=np.uint8), TILE_PX)
    strip = Strip(STRIP_FRAMES, encode_jpeg(np.tile(tiles[None, :, None], (TILE_PX, 1, 3))))
    path = write_viewer(store, timeline, strips={1: strip}, media=media or Media(note="gone"), fps=25)
    return folder / path


def open_page(browser, path, **emulated):
    opened = browser.open(path, **{"height": 1400} | emulated)
    opened.page.wait_for_selector("#timeline[data-ready]")
    return opened


def frame_of(page):
    return int(page.get_attribute("#timeline", "aria-valuenow"))


def plot_of(name):
    """Return JavaScript for the model of a chart, or of its data."""
    return f"Bokeh.documents[0].get_model_by_name('{name}')"


def box_of(page, chart):
    return page.evaluate(f"Bokeh.index.find_one({plot_of(chart)}).el.getBoundingClientRect().toJSON()")


def limits_of(page):
    return page.evaluate(f"[{plot_of('units')}.x_range.start, {plot_of('units')}.x_range.end]")


def x_of(page, frame):
    """Return the pixel of a frame within the timeline."""
    left, width = page.evaluate(f"(box => [box.left, box.width])(Bokeh.index.find_one({plot_of('units')}).frame.bbox)")
    start, end = limits_of(page)
    return box_of(page, "units")["left"] + left + (frame - start) / (end - start) * width


def centre_of(page, chart):
    box = box_of(page, chart)
    return box["top"] + box["height"] / 2


@pytest.fixture(scope="module")
def without_video(tmp_path_factory):
    return make_page(tmp_path_factory.mktemp("gone"))


PLAYABLE = {
    "even.mp4": VideoSpec(FRAMES),
    "uneven.mp4": VideoSpec(FRAMES, tick=UNEVEN_TICKS),
    "hidden start.mp4": VideoSpec(FRAMES + 5, tick=tuple(range(0, 512 * (FRAMES + 5), 512)), shift_ticks=-512 * 5),
    "late start.mp4": VideoSpec(FRAMES, shift_ticks=6400),
    "turned.mp4": VideoSpec(FRAMES, rotation_degrees_ccw=90),
    "é#1.webm": VideoSpec(FRAMES, codec="libvpx-vp9", b_frames=0),
}


@pytest.fixture(scope="module", params=PLAYABLE)
def played(request, tmp_path_factory):
    """(page, index) of a video that browsers play."""
    folder = tmp_path_factory.mktemp("played")
    path = write_video(folder / request.param, PLAYABLE[request.param])
    index = index_video(path)
    assert index.frame_count == FRAMES
    media = find_media(Store(str(folder)), folder_of_viewer("clip"), str(path), index)
    assert media.link and media.note == ""
    return make_page(folder, index, media), index


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("hevc.mov", VideoSpec(FRAMES, codec="libx265", tick=UNEVEN_TICKS)),
        ("old.avi", VideoSpec(FRAMES, codec="mpeg4", b_frames=0)),
        ("deep.mp4", VideoSpec(FRAMES, pixel_format="yuv422p10le")),
    ],
    ids=str,
)
def test_other_videos_get_a_copy_with_the_same_frames(browser, tmp_path, name, spec):
    path, printed = write_video(tmp_path / name, spec), []
    index, store, folder = index_video(path), Store(str(tmp_path)), folder_of_viewer("clip")
    media = find_media(store, folder, str(path), index, on_copy=printed.append)
    copies = list((tmp_path / folder).glob("*.mp4"))
    assert [copy.name for copy in copies] == [media.link] and "writing a copy in H.264" in printed[0]
    np.testing.assert_allclose(index_video(copies[0]).pts_seconds, index.pts_seconds, atol=1e-4)
    assert find_media(store, folder, str(path), index, on_copy=printed.append) == media and len(printed) == 1
    opened = open_page(browser, make_page(tmp_path, index, media))
    opened.wait_until("document.getElementById('video').readyState >= 2")
    opened.page.mouse.click(x_of(opened.page, 17), centre_of(opened.page, "units"))
    opened.wait_until("document.getElementById('timeline').dataset.presented == 17")
    opened.check()


def shown_number(page):
    """Return the number that the displayed picture of the video shows."""
    picture = Image.open(io.BytesIO(page.locator("#video").screenshot())).convert("RGB")
    return read_number(np.asarray(picture))


def test_every_frame_can_be_shown_exactly(browser, played):
    path, index = played
    opened = open_page(browser, path)
    page = opened.page
    opened.wait_until("document.getElementById('video').readyState >= 2")
    page.evaluate("document.getElementById('video').controls = false")
    page.evaluate("document.getElementById('boxes').style.display = 'none'")
    turned = index.rotation_degrees != 0
    first = None
    for frame in (1, 2, 3, 17, 30, 31, FRAMES - 1, FRAMES):
        page.mouse.click(x_of(page, frame), centre_of(page, "units"))
        opened.wait_until(f"document.getElementById('timeline').dataset.presented == {frame}")
        assert frame_of(page) == frame
        if not turned:
            # Frames that an edit list hides are not counted.
            first = shown_number(page) - frame if first is None else first
            end = time.monotonic() + 60
            while shown_number(page) != frame + first and time.monotonic() < end:
                page.wait_for_timeout(50)
            assert shown_number(page) == frame + first
    seconds = page.evaluate("document.getElementById('video').currentTime")
    assert seconds >= index.pts_seconds[-1]
    opened.check()


def test_keys_move_by_frames_and_seconds(browser, without_video):
    opened = open_page(browser, without_video)
    page = opened.page
    for key, frame in [
        ("ArrowRight", 2),
        ("ArrowRight", 3),
        ("ArrowLeft", 2),
        ("Shift+ArrowRight", 27),
        ("Shift+ArrowLeft", 2),
        ("ArrowLeft", 1),
        ("ArrowLeft", 1),
        ("End", FRAMES),
        ("ArrowRight", FRAMES),
        ("Home", 1),
    ]:
        page.keyboard.press(key)
        assert frame_of(page) == frame, key
    assert page.locator("#values th[scope=col]").all_inner_texts() == ["prediction", "label"]
    assert "0:00.00" in page.inner_text("#position")
    opened.check()


def test_playing_moves_the_cursor(browser, tmp_path):
    path = write_video(tmp_path / "clip.mp4", VideoSpec(FRAMES))
    index = index_video(path)
    media = find_media(Store(str(tmp_path)), folder_of_viewer("clip"), str(path), index)
    opened = open_page(browser, make_page(tmp_path, index, media))
    page = opened.page
    opened.wait_until("document.getElementById('video').readyState >= 2")
    page.keyboard.press("Space")
    opened.wait_until("document.getElementById('timeline').ariaValueNow > 20")
    page.keyboard.press("Space")
    assert page.evaluate("document.getElementById('video').paused")
    assert page.locator("#boxes span").count() >= 1


def test_charts_have_data_and_hover_shows_it(browser, without_video):
    opened = open_page(browser, without_video)
    page = opened.page
    line = page.evaluate(f"(data => [...data.x].map((x, i) => [x, data.y[i]]))({plot_of('valence-lines')}.data)")
    assert [x for x, _ in line] == list(range(1, FRAMES + 1))
    np.testing.assert_allclose([y for _, y in line], np.linspace(1, -1, FRAMES), atol=1e-4)
    for name in ("people", "expression", "units"):
        pixels = page.evaluate(f"[...{plot_of(f'{name}-picture')}.data.image[0]]")
        assert np.count_nonzero(pixels) > 200, name
    page.mouse.move(x_of(page, 31), centre_of(page, "expression"))
    tip = page.inner_text("#tip")
    # Frame 31 of person 1: class (30 // 3 + 1) % 8, p 0.72, valence 1 - 2 * 30 / 59; its label is Fear.
    assert "frame 31" in tip and "Fear 0.72" in tip and "-0.02" in tip and "AU" in tip
    page.mouse.move(x_of(page, 20), centre_of(page, "expression"))
    assert "not seen" in page.inner_text("#tip")
    page.mouse.move(5, 5)
    assert not page.is_visible("#tip")


def test_zoom_pan_and_thumbnails(browser, without_video):
    opened = open_page(browser, without_video)
    page = opened.page
    assert limits_of(page) == [0.5, FRAMES + 0.5]
    assert page.locator("#strip button:visible").count() == len(STRIP_FRAMES)
    page.locator("#strip button:visible").nth(2).click()
    assert frame_of(page) == STRIP_FRAMES[2]
    page.keyboard.press("+")
    start, end = limits_of(page)
    assert end - start == pytest.approx(FRAMES / 2) and start < STRIP_FRAMES[2] < end
    y = centre_of(page, "units")
    page.mouse.move(x_of(page, start + 15), y)
    page.mouse.down()
    page.mouse.move(x_of(page, start + 20), y, steps=4)
    page.mouse.up()
    opened.wait_until(f"Math.abs({plot_of('units')}.x_range.start - {start - 5}) < 0.6")
    assert frame_of(page) == STRIP_FRAMES[2]
    page.keyboard.press("0")
    assert limits_of(page) == [0.5, FRAMES + 0.5]


def test_persons_and_smoothing_can_be_chosen(browser, without_video):
    opened = open_page(browser, without_video)
    page = opened.page
    valence = f"{plot_of('valence-lines')}.data"
    page.keyboard.press("s")
    opened.wait_until(f"{valence}.y[0] < 0.6")
    page.keyboard.press("s")
    page.keyboard.press("]")
    opened.wait_until(f"{valence}.x[0] == 21")
    assert page.input_value("#person") == "1" and page.is_disabled("#smoothing") and page.is_disabled("#next")
    page.keyboard.press("[")
    opened.wait_until(f"{valence}.x[0] == 1")
    # The lower half of the overview is the second person.
    box = box_of(page, "people")
    page.mouse.click(x_of(page, 30), box["top"] + 0.75 * box["height"])
    assert page.input_value("#person") == "1" and frame_of(page) == 30


@pytest.mark.parametrize("emulated", [{}, {"dark": True}, {"width": 390, "height": 844}], ids=str)
def test_the_page_is_accessible_and_fits(browser, without_video, emulated):
    opened = open_page(browser, without_video, **emulated)
    opened.page.keyboard.press("ArrowRight")
    opened.check()
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= emulated.get("width", 1280)
    assert opened.page.inner_text("#media-note") == "gone"


def test_a_video_that_cannot_be_loaded_is_explained(browser, tmp_path):
    page = open_page(browser, make_page(tmp_path, media=Media("absent.mp4"))).page
    page.wait_for_selector("#media-note:visible")
    assert "absent.mp4 is gone, was moved" in page.inner_text("#media-note") and not page.is_visible("video")
    page.keyboard.press("ArrowRight")
    assert frame_of(page) == 2


@pytest.fixture
def slow_page(tmp_path):
    """Serve a viewer without its video; the last script of the page arrives after the answer about the video."""
    page = make_page(tmp_path, media=Media("absent.mp4")).read_text()
    start = page.rindex("<script")
    video_is_missing = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path != "/":
                self.send_error(404)
                video_is_missing.set()
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page[:start].encode())
            assert video_is_missing.wait(30)
            # The browser also has to see the answer.
            time.sleep(0.5)
            self.wfile.write(page[start:].encode())

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_video_that_could_not_be_loaded_before_the_script_ran_is_explained(browser, slow_page):
    page = open_page(browser, slow_page).page
    page.wait_for_selector("#media-note:visible")
    assert "absent.mp4 is gone, was moved" in page.inner_text("#media-note") and not page.is_visible("video")


def test_names_are_shown_as_text(browser, tmp_path):
    name = "<img src=x onerror=alert(1)>&quot;</script>"
    opened = open_page(browser, make_page(tmp_path, name=name.replace("/", "∕")))
    assert opened.page.inner_text("h1") == name.replace("/", "∕")
    opened.check()


@pytest.mark.parametrize("is_store_remote", [False, True])
def test_a_video_on_s3_has_a_copy_beside_its_page(tmp_path, s3_bucket, is_store_remote):
    index = index_video(write_video(tmp_path / "clip.mp4", VideoSpec(12)))
    place = location(f"{s3_bucket}/videos/clip.mp4")
    place.fs.put(str(tmp_path / "clip.mp4"), place.path)
    store = Store(f"{s3_bucket}/store" if is_store_remote else str(tmp_path / "store"))
    media = find_media(store, folder_of_viewer("clip"), str(place), index, on_copy=lambda line: None)
    assert media.note == "" and media.link
    copy = location(store.locate(f"{folder_of_viewer('clip')}/{media.link}"))
    assert index_video(copy).frame_count == 12
    gone = find_media(store, folder_of_viewer("clip"), str(place.parent / "other.mp4"), index)
    assert gone.link is None and "gone: s3://" in gone.note
