"""A picture of the summary of scored videos, for artifacts: the share of each expression, per person."""

import base64
import html

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.errors import printable
from data_contracts.vocabulary import EXPRESSIONS
from tasks.palette import EXPRESSION_COLOURS

_ROWS, _LETTERS = 20, 28
_NAME_PX, _BAR_PX, _ROW_PX, _LEGEND_PX = 230, 560, 26, 34
_STYLE = 'font-family="sans-serif" font-size="13" fill="#202020"'


def draw_persons(persons: pa.Table) -> str | None:
    """Return a picture of rows of ``SUMMARY`` as a ``data:`` URL of SVG; None if no expression is predicted."""
    known = persons.filter(pc.is_valid(persons["share_neutral"])).slice(0, _ROWS).to_pylist()
    if not known:
        return None
    height_px, width_px = _LEGEND_PX + _ROW_PX * len(known) + 8, _NAME_PX + _BAR_PX + 12
    parts = [f'<rect width="{width_px}" height="{height_px}" fill="#ffffff"/>', *_legend()]
    for number, row in enumerate(known):
        top = _LEGEND_PX + number * _ROW_PX
        name = printable(str(row["video"]))
        name = name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"
        parts.append(f'<text x="8" y="{top + 16}" {_STYLE}>{html.escape(name)}, {row["person"]}</text>')
        left = float(_NAME_PX)
        for expression in EXPRESSIONS:
            length = _BAR_PX * row[f"share_{expression.lower()}"]
            colour = EXPRESSION_COLOURS[expression]
            parts.append(f'<rect x="{left:.1f}" y="{top}" width="{length:.1f}" height="20" fill="{colour}"/>')
            left += length
    content = "".join(parts)
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width_px}" height="{height_px}">{content}</svg>'
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _legend() -> list[str]:
    parts, left = [], 8
    for expression in EXPRESSIONS:
        parts.append(f'<rect x="{left}" y="8" width="13" height="13" fill="{EXPRESSION_COLOURS[expression]}"/>')
        parts.append(f'<text x="{left + 18}" y="19" {_STYLE}>{expression}</text>')
        left += 30 + 8 * len(expression)
    return parts
