"""The report in a browser: charts have data, tables can be sorted, and every look is accessible."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from data_contracts.store.store import Store
from tasks.pages.write_report import write_report

pytestmark = pytest.mark.service
OLD_STORE = Path(__file__).parents[2] / "data" / "store_34a2ed4" / "store"
# Chart -> numbers of points of its series.
POINTS = """() => Object.fromEntries(Bokeh.documents.map((one) => one.roots()[0]).map((plot) => [
    plot.id, plot.renderers.filter((one) => one.data_source).map((one) => one.data_source.get_length())]))"""
# Where the first point of the first chart is on the screen.
FIRST_POINT = """() => {
    const [view] = Bokeh.index.roots, source = view.model.renderers.at(-1).data_source;
    const [x] = source.get_column("value"), [y] = source.get_column("y"), box = view.el.getBoundingClientRect();
    return [box.left + view.frame.x_scale.compute(x), box.top + view.frame.y_scale.compute(y)];
}"""
SHOW_ALL = """async () => {
    for (const one of document.querySelectorAll(".chart")) {
        one.scrollIntoView();
        await new Promise(requestAnimationFrame);
    }
}"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of a store with a head of expressions and a multi-task head."""
    store = Store(shutil.copytree(OLD_STORE, tmp_path_factory.mktemp("report") / "store"))
    return Path(store.root) / write_report(store, name="store", written=datetime(2026, 1, 2, tzinfo=UTC))


@pytest.fixture(scope="module", params=["light", "dark", "phone"])
def opened(page, browser, request):
    opened = browser.open(page, dark=request.param == "dark", width=390 if request.param == "phone" else 1280)
    opened.page.evaluate(SHOW_ALL)
    opened.page.wait_for_function(
        "document.querySelectorAll('.chart').length === document.querySelectorAll('.chart[data-shown]').length"
    )
    return opened


def test_every_look_is_accessible_and_needs_no_network(opened):
    opened.check()
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
        "the page does not scroll sideways"
    )


def test_charts_have_data(opened):
    points = opened.page.evaluate(POINTS)
    assert len(points) >= 12
    assert all(counts and all(count > 0 for count in counts) for counts in points.values())
    assert opened.page.locator(".chart canvas").count() >= len(points)


def test_a_chart_shows_values_of_the_point_below_the_pointer(page, browser):
    opened = browser.open(page)
    chart = opened.page.locator(".chart").first
    chart.scroll_into_view_if_needed()
    opened.page.wait_for_selector(".chart[data-shown]")
    opened.page.mouse.move(*opened.page.evaluate(FIRST_POINT))
    for text in ("in-sample", "0.083"):
        opened.page.locator(".bk-Tooltip").get_by_text(text).wait_for()
    assert opened.faults == []


def test_tables_are_sorted_by_click_and_by_key(page, browser):
    opened = browser.open(page)
    table = opened.page.locator("table", has=opened.page.locator("caption", has_text="Scores with intervals"))

    def column(number):
        return [float(text) for text in table.locator(f"tbody td:nth-child({number})").all_inner_texts()]

    values = column(4)
    assert len(set(values)) > 2 and values not in (sorted(values), sorted(values, reverse=True))
    head = table.locator("th", has_text="value")
    head.locator("button").click()
    assert column(4) == sorted(values, reverse=True) and head.get_attribute("aria-sort") == "descending"
    head.locator("button").focus()
    opened.page.keyboard.press("Enter")
    assert column(4) == sorted(values) and head.get_attribute("aria-sort") == "ascending"
    name = table.locator("th").first
    name.locator("button").press("Space")
    names = table.locator("tbody td:first-child").all_inner_texts()
    assert names == sorted(names) and head.get_attribute("aria-sort") is None
    assert opened.faults == []


# Width of each printed chart, and whether it has a pixel of a colour.
PRINTED = """(colour) => [...document.querySelectorAll(".chart")].map((chart) => {
    const canvas = chart.querySelector("canvas.printed"), { width, height } = canvas;
    const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
    for (let at = 0; at < data.length; at += 4)
        if (data[at + 3] === 255 && colour.every((value, part) => data[at + part] === value)) return true;
    return false;
})"""


def test_every_chart_is_printed_in_light_colours(page, browser):
    opened = browser.open(page, dark=True)
    opened.wait_until("!document.querySelector('.chart:not([data-shown])')")
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    printed = opened.page.evaluate(PRINTED, [0x57, 0x60, 0x6A])
    assert len(printed) >= 12 and all(printed), "the labels of the axes are dark"
    opened.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.page.locator(".printed").count() == 0 and opened.faults == []


def test_charts_follow_the_colour_scheme_and_print(page, browser):
    """Axes are painted in the colours of the page: they change with the scheme, also on paper."""
    opened = browser.open(page)
    opened.page.evaluate(SHOW_ALL)
    chart = opened.page.locator(".chart").first

    def pixels(**media):
        opened.page.emulate_media(**media)
        opened.page.wait_for_timeout(300)
        return chart.screenshot()

    light = pixels(color_scheme="light")
    dark = pixels(color_scheme="dark")
    assert light != dark
    assert pixels(color_scheme="light") == light
    opened.page.emulate_media(media="print", color_scheme="dark")
    assert opened.page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 31, 36)"
