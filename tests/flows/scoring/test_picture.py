import base64
from xml.etree import ElementTree

import pyarrow as pa

from data_contracts.schemas.predictions import SUMMARY
from data_contracts.vocabulary import EXPRESSIONS
from flows.scoring.picture import draw_persons


def table_of(*rows):
    return pa.Table.from_pylist(list(rows), schema=SUMMARY.schema)


def row_of(video, **shares):
    values = dict.fromkeys(SUMMARY.schema.names)
    known = {f"share_{name.lower()}": shares.get(name.lower(), 0.0) for name in EXPRESSIONS} if shares else {}
    return values | {"video": video, "person": 1} | known


def test_bars_have_the_lengths_of_the_shares_and_names_are_text():
    url = draw_persons(table_of(row_of("<b>&" + "x" * 60, fear=0.25, sadness=0.75), row_of("none")))
    root = ElementTree.fromstring(base64.b64decode(url.partition(",")[2]))
    bars = [float(one.get("width")) for one in root.iter() if one.tag.endswith("rect") and one.get("height") == "20"]
    assert [bar for bar in bars if bar] == [140, 420] and len(bars) == len(EXPRESSIONS)
    names = [one.text for one in root.iter() if one.tag.endswith("text")]
    assert names[-1].startswith("<b>&xx") and names[-1].endswith("\N{HORIZONTAL ELLIPSIS}, 1") and "Fear" in names


def test_without_expressions_there_is_no_picture():
    assert draw_persons(table_of(row_of("clip"))) is None
