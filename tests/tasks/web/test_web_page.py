"""The exported page in a browser: the results of ``score``, camera, offline use, accessibility, and messages."""

import functools
import http.server
import json
import threading

import numpy as np
import polars as pl
import pytest
import safetensors.numpy
from PIL import Image
from safetensors import safe_open

from data_contracts.errors import InputError
from data_contracts.vocabulary import DIMENSIONS, EXPRESSIONS
from flows.commands.exports import export_models
from flows.commands.parameters import ExportModelParameters
from models.backbones.registry import COMMON_5, get_spec
from models.backbones.weights import bundled_path
from tasks.demo.people import make_appearance, make_performance
from tasks.demo.scenes import LEFT_XY, RIGHT_XY, Person, render_frames
from tests.backbone_files import WITH_AFFECT
from tests.processes import run_command

pytestmark = pytest.mark.service

READY = "document.documentElement.dataset.ready === ''"
# Faces as the page displays them: boxes in shares of the picture, and the lengths of the bars.
FACES = """[...document.querySelectorAll('#boxes > div:not([hidden])')].map((box, i) => {
  const card = document.querySelectorAll('#faces > li')[i];
  const share = (bar) => Number(bar.style.getPropertyValue('--share'));
  const values = [...card.querySelectorAll('.affect strong')].map((one) => Number(one.textContent.replace('−', '-')));
  const place = ['left', 'top', 'width', 'height'].map((name) => parseFloat(box.style[name]) / 100);
  return {place, probabilities: [...card.querySelectorAll('.bar')].map(share), values};
})"""


def render_scene(*centres, frames=16):
    """Return frames with a generated person at each centre."""
    random = np.random.default_rng(3)
    looks = [make_appearance(n, centre_xy=xy, random=random) for n, xy in enumerate(centres)]
    people = [Person("", look, make_performance(frames, leaves=False, random=random)) for look in looks]
    return list(render_frames(people, random))


def write_photos(folder, portraits):
    """Write ten pictures: the portraits, turned, cropped, shrunk, enlarged and several together; generated people."""
    first, second = (Image.fromarray(portrait) for portrait in portraits)
    both = Image.new("RGB", (first.width + second.width, max(first.height, second.height)), "navy")
    both.paste(first, (0, 0))
    both.paste(second, (first.width, 0))
    crowd = Image.new("RGB", (both.width, 2 * both.height))
    crowd.paste(both, (0, 0))
    crowd.paste(both.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (0, both.height))
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = {
        "first.png": first,
        "second.png": second,
        "both.png": both,
        "crowd.png": crowd.resize((crowd.width // 2, crowd.height // 2)),
        "small.png": first.resize((first.width * 2 // 5, first.height * 2 // 5)),
        "large.png": first.resize((first.width * 9 // 4, first.height * 9 // 4), Image.Resampling.BICUBIC),
        "cut.png": second.crop((200, 40, 300, 260)),
        "alone.png": Image.fromarray(render_scene(LEFT_XY)[5]),
        "pair.png": Image.fromarray(render_scene(LEFT_XY, RIGHT_XY)[9]),
    }
    for name, picture in pictures.items():
        picture.save(folder / name)
    first.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=exif, quality=95)
    return sorted(folder.iterdir())


def write_clip(path, frames):
    """Write RGB frames as a video without compression, which Chromium shows as the picture of a camera."""
    height, width = frames[0].shape[:2]
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C420jpeg\n".encode())
        for frame in frames:
            light, blue, red = np.asarray(Image.fromarray(frame).convert("YCbCr")).transpose(2, 0, 1)
            file.write(b"FRAME\n" + light.tobytes() + blue[::2, ::2].tobytes() + red[::2, ::2].tobytes())


def weights_with_affect(path):
    """Write the bundled weights with two more, random outputs: valence and arousal."""
    with safe_open(bundled_path(get_spec("emotion_lite0")), "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        described = json.loads(file.metadata()["affwild2"])
    random = np.random.default_rng(0)
    added = {"weight": 0.02 * random.normal(size=(2, 1280)), "bias": np.array([0.1, -0.2])}
    for name, values in added.items():
        whole = np.concatenate([tensors[f"classifier.{name}"], values])
        tensors[f"classifier.{name}"] = whole.astype(np.float32)
    safetensors.numpy.save_file(tensors, path, {"affwild2": json.dumps(described | {"class_names": WITH_AFFECT})})
    return path


def export(out, **options):
    assert export_models(ExportModelParameters("emotion_lite0", formats=["web"], out=out, **options)) == 0
    return out


class Server(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(portraits, tmp_path_factory):
    """A served folder with the page, the page of a backbone with valence and arousal, photos, and scores of both."""
    root = tmp_path_factory.mktemp("site")
    weights = weights_with_affect(root / "affect.safetensors")
    export(root / "page")
    export(root / "affect", weights=weights)
    (root / "photos").mkdir()
    photos = write_photos(root / "photos", portraits)
    write_clip(root / "clip.y4m", render_scene(LEFT_XY))
    run_command("score", root / "photos", "--out", root / "scored", "--workers", 2)
    run_command("score", photos[0], "--out", root / "scored_affect", "--workers", 1, "--weights", weights)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=root)) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield root, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def camera_browser(site, browser):
    """A browser whose camera shows the clip."""
    clip = site[0] / "clip.y4m"
    with browser.started_again(
        "--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={clip}"
    ) as one:
        yield one


def open_page(browser, url, **emulated):
    opened = browser.open(url, **emulated)
    opened.wait_until(READY)
    return opened


def show_photo(opened, path):
    """Choose a photo and return its faces as {box: xyxy in px, probabilities, values}."""
    opened.page.set_input_files("#file", path)
    opened.wait_until("/faces?:|No face/.test(document.getElementById('message').textContent)")
    with Image.open(path) as image:
        width, height = image.size if path.suffix != ".jpg" else image.size[::-1]
    faces = opened.page.evaluate(FACES)
    for face in faces:
        left, top, wide, high = face["place"]
        face["box"] = np.array([left * width, top * height, (left + wide) * width, (top + high) * height])
    opened.page.evaluate("document.getElementById('message').textContent = ''")
    return faces


def scored_faces(folder, name):
    table = pl.read_parquet(folder / "tables" / "images.parquet").filter(pl.col("image").str.ends_with(name))
    return table.drop_nulls("face").to_dicts()


def overlap(box, row):
    other = np.array([row[f"box_{corner}_px"] for corner in ("x1", "y1", "x2", "y2")])
    sides = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None)
    shared = sides.prod()
    return shared / ((box[2:] - box[:2]).prod() + (other[2:] - other[:2]).prod() - shared)


def test_photos_get_the_results_of_score(site, browser):
    root, url = site
    opened = open_page(browser, f"{url}/page/")
    order = [name for name in EXPRESSIONS if name in COMMON_5]
    counts = {}
    for path in sorted((root / "photos").iterdir()):
        faces, rows = show_photo(opened, path), scored_faces(root / "scored", path.name)
        counts[path.name] = len(faces)
        assert len(faces) == len(rows), path.name
        for row in rows:
            face = max(faces, key=lambda one: overlap(one["box"], row))
            assert overlap(face["box"], row) > 0.95, path.name
            expected = [row[f"p_{name.lower()}"] for name in order]
            np.testing.assert_allclose(face["probabilities"], expected, atol=0.02, err_msg=path.name)
    assert counts["crowd.png"] >= 4 and counts["both.png"] == 2 and min(counts.values()) >= 1
    opened.check()


def test_valence_and_arousal_and_unknown_licences_are_shown(site, browser):
    root, url = site
    opened = open_page(browser, f"{url}/affect/", dark=True)
    path = min((root / "photos").iterdir())
    (face,), (row,) = show_photo(opened, path), scored_faces(root / "scored_affect", path.name)
    np.testing.assert_allclose(face["values"], [row[name] for name in DIMENSIONS], atol=0.02)
    assert "see file" in opened.page.text_content("#licences")
    opened.check()


def test_the_camera_is_mirrored_in_display_only(site, camera_browser):
    _, url = site
    opened = open_page(camera_browser, f"{url}/page/", width=390, height=844, permissions=["camera"])
    assert "Nothing leaves this device" in opened.page.text_content("body")
    assert "Apache-2.0" in opened.page.text_content("#licences")
    opened.page.click("#camera")
    opened.wait_until("document.querySelectorAll('#boxes > div:not([hidden])').length === 1")
    opened.wait_until("document.querySelector('#rate dd').textContent > 0")
    left, _, wide, _ = opened.page.evaluate(FACES)[0]["place"]
    # The face is in the left half of the clip.
    assert left + wide / 2 > 0.6
    assert opened.page.evaluate("getComputedStyle(document.getElementById('video')).transform").startswith("matrix(-1")
    assert float(opened.page.text_content("#per-face dd")) > 0
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
    opened.check()
    opened.page.click("#camera")
    assert opened.page.text_content("#message") == "The camera is off."
    assert opened.page.evaluate("document.getElementById('video').srcObject") is None
    opened.check()


def test_the_page_works_without_a_connection_and_by_keyboard(site, browser):
    root, url = site
    opened = open_page(browser, f"{url}/page/")
    opened.wait_until("document.documentElement.dataset.offline === ''")
    # Listening starts early: otherwise the browser may open its own dialog.
    choosers = []
    opened.page.on("filechooser", lambda chooser: choosers.append(chooser))
    opened.page.context.set_offline(True)
    opened.page.reload()
    opened.wait_until(READY)
    assert opened.page.evaluate("crossOriginIsolated"), "isolated pages may use threads"
    opened.page.keyboard.press("Tab")
    opened.page.keyboard.press("Enter")
    for _ in range(600):
        if choosers:
            break
        opened.page.wait_for_timeout(20)
    choosers[0].set_files(root / "photos" / "both.png")
    opened.wait_until("document.getElementById('message').textContent === '2 faces: Neutral, Happiness.'")
    opened.check()


def test_missing_cameras_blocked_cameras_and_unreadable_photos_are_explained(site, browser, camera_browser, tmp_path):
    _, url = site
    opened = open_page(browser, f"{url}/page/", permissions=["camera"])
    opened.page.click("#camera")
    opened.wait_until("/No camera was found/.test(document.getElementById('message').textContent)")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    opened.page.set_input_files("#file", broken)
    opened.wait_until("/broken.jpg is no picture/.test(document.getElementById('message').textContent)")
    Image.new("RGB", (90, 90)).save(tmp_path / "black.png")
    assert show_photo(opened, tmp_path / "black.png") == []
    opened.check()
    # All permissions that are not granted are then denied.
    blocked = open_page(camera_browser, f"{url}/page/", permissions=["geolocation"])
    blocked.page.click("#camera")
    blocked.wait_until("/camera is blocked/.test(document.getElementById('message').textContent)")
    blocked.check()


def test_a_page_replaces_the_networks_of_an_earlier_one_and_leaves_other_files(tmp_path):
    networks, old = tmp_path / "networks", {"backbone": {"path": "networks/old.onnx"}}
    networks.mkdir()
    (tmp_path / "settings.json").write_text(json.dumps({"networks": old}))
    for name in ("old.onnx", "old.onnx.preprocessing.json", "mine.onnx"):
        (networks / name).write_text("")
    export(tmp_path)
    found = {path.name for path in networks.iterdir()}
    assert {"mine.onnx", "pnet.onnx", "emotion_lite0.onnx"} <= found and not any(
        name.startswith("old") for name in found
    )


def test_a_backbone_without_expressions_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a backbone with classes such as"):
        export_models(ExportModelParameters("efficientnet_lite0", formats=["web"], out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
