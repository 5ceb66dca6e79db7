from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest

from data_contracts.errors import InputError
from data_contracts.store.manifest import Failure, UnitKey
from data_contracts.store.store import Store
from tasks.pages import write_report as module
from tasks.pages.report_tables import RunRecord
from tasks.pages.write_report import REPORT_TIME, write_report

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Tags of a page, their links, and the cells of each table by caption. Checks that tags are nested correctly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.caption = ""
        self.cell: str | None = None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("href", "src", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attributes)
        if tag == "tr":
            self.tables.setdefault(self.caption, []).append([])
        if tag in ("caption", "td", "th"):
            self.cell = ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "caption":
            self.caption = self.cell
        if tag in ("td", "th"):
            self.tables[self.caption][-1].append(self.cell.strip())

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data


def read_page(store: Store, path: str) -> tuple[str, Page]:
    text = store.read_bytes(path).decode()
    return text, Page(text)


def note_failure(store: Store, video: str, cause: str, tries: int = 1) -> None:
    store.note_failure(UnitKey("videos", (("video", video),)), Failure("f" * 64, cause, tries))


def record(**changes) -> RunRecord:
    made = RunRecord(
        name="score here",
        flow="score",
        started=NOW,
        seconds=1.5,
        outcome="Failed: 2 extracted, 1 failed",
        is_good=False,
        parameters={},
        stage_columns=["stage", "done"],
        stages=[["crop_faces", 1234]],
        causes=[],
    )
    return replace(made, **changes)


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_names_and_causes_are_escaped(request, tmp_path, place):
    store = Store(tmp_path / "store" if place == "disk" else request.getfixturevalue("s3_bucket") + "/store")
    note_failure(store, "<script>alert(1)</script>", "s3://key:secret@host/clip.mp4?X-Amz-Signature=abc: not there", 3)
    note_failure(store, "half\udce4\nname", '\x1b[31m{{ 7 * 7 }} & "quoted"</td>')
    run = record(
        name="score <b>into</b> here",
        parameters={"out": "<i>", "heads": ["a", "b"], "limit": None},
        causes=[("failed", "fit_head", "heads/au-1", "expected labels, found <none>")],
    )
    path = write_report(store, name="night-1", written=NOW, run=run)
    assert path == "reports/night-1/index.html"
    text, page = read_page(store, path)
    assert not {"b", "i", "img", "link"} & set(page.tags) and page.tags.count("script") == 1 and page.links == []
    assert "secret" not in text and "abc" not in text
    head, *rows = page.tables["Failures and losses"]
    assert head == ["what", "dataset", "unit", "cause"]
    assert ["quarantined, failed 3 times", "videos", "<script>alert(1)</script>"] in [row[:3] for row in rows]
    assert ["failed", "videos", "half\\udce4\\nname", '\\x1b[31m{{ 7 * 7 }} & "quoted"</td>'] in rows
    assert page.tables["Stages"] == [["stage", "done"], ["crop_faces", "1,234"]]
    assert page.tables["Parameters"][1:] == [["out", "<i>"], ["heads", "a, b"]]
    assert page.tables["Failures and losses of this run"][1][3] == "expected labels, found <none>"


def test_page_needs_no_other_file_and_adapts_to_screens(tmp_path):
    store = Store(tmp_path)
    note_failure(store, "clip", "empty")
    run = record(stages=[[f"stage{number}", number] for number in range(2_003)])
    text, page = read_page(store, write_report(store, name="store", written=NOW, run=run))
    assert "url(" not in text and "@import" not in text and "http://" not in text and "https://" not in text
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text and "<title>" in text
    assert len(page.tables["Stages"]) == 1 + 2_000 and "3 more rows are not shown" in text


def test_page_of_a_missing_store_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a store of affwild2"):
        write_report(Store(tmp_path), name="store", written=NOW)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_old_reports_of_runs_are_removed(request, tmp_path, place, monkeypatch):
    """Pages by other names, and the newest ones after a long break, stay."""
    monkeypatch.setattr(module, "_KEPT_REPORTS", 3)
    store = Store(tmp_path / "store" if place == "disk" else request.getfixturevalue("s3_bucket") + "/store")
    note_failure(store, "clip", "cause")

    def name(days, flow="rescore"):
        return f"{flow}-{NOW - timedelta(days=days):{REPORT_TIME}}-{days:08x}"

    others = ["store", "night", "rescore-2026", "rescore-20200101T000000Z-copy"]
    ages = [400, 365, 100, 91, 90, 89, 1]
    for one in [*others, *map(name, ages), name(399, "fit-mtl")]:
        store.write_bytes(f"reports/{one}/index.html", b"page")
    write_report(store, name=name(0), written=NOW, run=record())
    assert store.list_folder("reports") == sorted([*others, *map(name, [90, 89, 1, 0])])

    monkeypatch.setattr(module, "_REMOVED_AT_ONCE", 2)
    later = NOW + timedelta(days=1000)
    write_report(store, name=f"rescore-{later:{REPORT_TIME}}-0000ffff", written=later, run=record())
    assert store.list_folder("reports") == sorted(
        [*others, *map(name, [1, 0]), f"rescore-{later:{REPORT_TIME}}-0000ffff"]
    )
    write_report(store, name="store", written=later + timedelta(days=1000))
    assert name(1) in store.list_folder("reports"), "the report of a store removes none"
