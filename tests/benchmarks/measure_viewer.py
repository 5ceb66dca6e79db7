"""Measure the viewer of a long video in headless Chromium: time to the charts, and time per interaction.

    python -m tests.benchmarks.measure_viewer [--frames 20000] [--persons 2] [--keep FOLDER]

It runs in the environment of make test-services. For each kind of interaction it prints the mean time that the main
thread works, and from the event to two frames of the display later, when every change is painted: at 60 frames per
second, the least possible is 17 to 33 ms.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from data_contracts.store.store import Store
from data_contracts.vocabulary import ACTION_UNITS, EXPRESSIONS
from tasks.pages.media import Media
from tasks.pages.thumbnails import TILE_PX, Strip
from tasks.pages.timeline import BranchValues, PersonTimeline, Timeline, Values
from tasks.pages.viewer import write_viewer
from tests.browser import OpenedPage, running_browser

_REPEATS, _STARTS = 10, 5
_WATCH = """
window.measured = [];
const after = (start) => requestAnimationFrame(() => requestAnimationFrame(() => {
  const channel = new MessageChannel();
  channel.port1.onmessage = () => measured.push(performance.now() - start);
  channel.port2.postMessage(0);
}));
for (const kind of ["keydown", "pointermove", "pointerup", "wheel"])
  addEventListener(kind, (event) => after(event.timeStamp), { capture: true, passive: true });
new MutationObserver((changes, observer) => {
  if (!document.querySelector("#timeline[data-ready]")) return;
  observer.disconnect();
  requestAnimationFrame(() => requestAnimationFrame(() => { window.charts = performance.now(); }));
}).observe(document, { subtree: true, childList: true, attributeFilter: ["data-ready"] });
"""


def make_timeline(frames: int, persons: int) -> Timeline:
    """Return a timeline of smooth random values, with labels, values before smoothing and gaps."""
    random = np.random.default_rng(0)

    def wave(columns: int, low: float, high: float) -> np.ndarray:
        walk = np.cumsum(random.normal(size=(frames, columns)), axis=0) / 40
        return (low + (high - low) * (0.5 + 0.5 * np.sin(walk))).astype(np.float32)

    def values(with_probabilities: bool) -> Values:
        scores, units = wave(len(EXPRESSIONS), 0, 1), wave(len(ACTION_UNITS), 0, 1)
        scores /= scores.sum(axis=1, keepdims=True)
        return {
            "expr": BranchValues(
                scores.argmax(axis=1)[:, None].astype(np.float32), scores if with_probabilities else None
            ),
            "va": BranchValues(wave(2, -1, 1)),
            "au": BranchValues((units > 0.5).astype(np.float32), units if with_probabilities else None),
        }

    people = [
        PersonTimeline(
            number=number,
            subject=None,
            first_frame=1,
            has_face=wave(1, 0, 1)[:, 0] > 0.1,
            boxes_px=np.sort(wave(4, 0, 600), axis=1),
            smoothed=values(True),
            raw=values(True),
            labels=values(False),
        )
        for number in range(1, persons + 1)
    ]
    return Timeline("measured", frames, np.arange(frames) / 30, people, "generated values", [])


def make_strip(frames: int) -> Strip:
    """Return 96 thumbnails of noise."""
    from models.faces.crops import encode_jpeg

    shown = np.linspace(1, frames, 96, dtype=int).tolist()
    noise = np.random.default_rng(1).integers(0, 255, (TILE_PX, TILE_PX * len(shown), 3), dtype=np.uint8)
    return Strip(shown, encode_jpeg(noise, quality=80))


class _Meter:
    def __init__(self, opened: OpenedPage) -> None:
        self.page = opened.page
        self.session = self.page.context.new_cdp_session(self.page)
        self.session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy_seconds(self) -> float:
        metrics = self.session.send("Performance.getMetrics")["metrics"]
        return next(one["value"] for one in metrics if one["name"] == "TaskDuration")

    def measure(self, act: Any, repeats: int = _REPEATS) -> dict[str, float]:
        """Return milliseconds per interaction: the main thread's work (mean), and until it is painted."""
        self.page.evaluate("measured.length = 0")
        before = self.busy_seconds()
        for number in range(repeats):
            act(number)
            self.page.wait_for_timeout(60)
        busy = self.busy_seconds() - before
        times = sorted(self.page.evaluate("measured"))
        return {
            "work": 1000 * busy / repeats,
            "median": statistics.median(times),
            "95 %": times[int(0.95 * (len(times) - 1))],
            "longest": times[-1],
        }


def interactions(opened: OpenedPage) -> dict[str, dict[str, float]]:
    """Measure every kind of interaction on an opened page."""
    page, meter = opened.page, _Meter(opened)
    box = page.locator("#timeline").bounding_box()
    assert box
    x, y = box["x"] + 0.5 * box["width"], box["y"] + 120

    def drag(number: int) -> None:
        page.mouse.move(x + (4 if number % 2 else -4) * number, y)

    found = {
        "seek by a frame": meter.measure(lambda _: page.keyboard.press("ArrowRight")),
        "hover": meter.measure(lambda n: page.mouse.move(x - 200 + 10 * n, y)),
        "seek by a click": meter.measure(lambda n: page.mouse.click(x - 200 + 10 * n, y)),
        "zoom in and out": meter.measure(lambda n: page.keyboard.press("+" if n % 8 < 4 else "-")),
    }
    page.keyboard.press("+"), page.keyboard.press("+"), page.wait_for_timeout(300)
    page.mouse.move(x, y)
    page.mouse.down()
    found["pan"] = meter.measure(drag)
    page.mouse.up()
    found["other person"] = meter.measure(lambda n: page.keyboard.press("]" if n % 2 == 0 else "["))
    found["smoothing on and off"] = meter.measure(lambda _: page.keyboard.press("s"))
    return found


def main() -> None:
    """Write the page, open it a few times and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--persons", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder for the page")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_browser() as browser:
        store = Store(str(given.keep or folder))
        timeline = make_timeline(given.frames, given.persons)
        strips = {one.number: make_strip(given.frames) for one in timeline.persons}
        path = Path(store.locate(write_viewer(store, timeline, strips=strips, media=Media(), fps=30)))
        print(f"{given.frames:,} frames, {given.persons} persons: {path.stat().st_size / 1e6:.1f} MB")
        starts = []
        for _ in range(_STARTS):
            opened = browser.open("about:blank")
            opened.page.add_init_script(_WATCH)
            meter = _Meter(opened)
            opened.page.goto(path.as_uri())
            opened.wait_until("window.charts")
            paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            starts.append([*opened.page.evaluate(f"[{paint}, charts]"), 1000 * meter.busy_seconds()])
        first, charts, work = (statistics.median(one) for one in zip(*starts, strict=True))
        print(
            f"first paint after {first:.0f} ms, charts after {charts:.0f} ms, work {work:.0f} ms (medians of {_STARTS})"
        )
        for name, times in interactions(opened).items():
            print(f"{name}: " + json.dumps({key: round(value, 1) for key, value in times.items()}))


if __name__ == "__main__":
    main()
