"""The browser of the tests notices what pages must not do."""

import pytest

pytestmark = pytest.mark.service

SOUND = """<!doctype html><html lang="en"><head><title>Sound</title><style>
body {color: #111; background: #fff} @media (prefers-color-scheme: dark) {body {color: #eee; background: #111}}
</style></head>
<body><main><h1>Sound</h1><button onclick="this.textContent = 'pressed'">press</button></main></body></html>"""


def make_page(folder, text):
    path = folder / "page.html"
    path.write_text(text)
    return path


def test_a_sound_page_passes_and_takes_clicks(browser, tmp_path):
    opened = browser.open(make_page(tmp_path, SOUND))
    opened.page.click("button")
    assert opened.page.text_content("button") == "pressed"
    assert opened.requests == [opened.page.url]
    opened.check()


@pytest.mark.parametrize(
    ("added", "fault"),
    [
        ("<script>console.error('lost')</script>", "console error: lost"),
        ("<script>console.warn('doubt')</script>", "console warning: doubt"),
        ("<script>absent()</script>", "uncaught: absent is not defined"),
        ("<img alt='' src='absent.png'>", "request failed"),
    ],
)
def test_faults_are_noted(browser, tmp_path, added, fault):
    opened = browser.open(make_page(tmp_path, SOUND + added))
    assert fault in "\n".join(opened.faults)
    with pytest.raises(AssertionError, match=fault):
        opened.check()


def test_requests_to_other_servers_are_noted(browser, tmp_path):
    # Nothing listens at this address, and it is on this machine.
    opened = browser.open(make_page(tmp_path, SOUND + "<img alt='' src='http://127.0.0.1:9/outside.png'>"))
    assert opened.outside_requests() == ["http://127.0.0.1:9/outside.png"]


def test_axe_reports_an_image_without_a_description(browser, tmp_path):
    opened = browser.open(make_page(tmp_path, SOUND + "<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>"))
    (line,) = opened.axe_violations()
    assert line.startswith("image-alt (critical)")


def test_dark_mode_and_phones_are_emulated(browser, tmp_path):
    opened = browser.open(make_page(tmp_path, SOUND), dark=True, width=390, height=844)
    shown = "[getComputedStyle(document.body).backgroundColor, matchMedia('(max-device-width: 390px)').matches]"
    assert opened.page.evaluate(shown) == ["rgb(17, 17, 17)", True]


def test_a_missing_browser_is_one_clear_line(monkeypatch):
    from tests.browser import find_chromium

    monkeypatch.setenv("CHROMIUM", "/absent/chromium")
    with pytest.raises(RuntimeError, match=r"no Chromium found \(/absent/chromium\): run make browser"):
        find_chromium()
