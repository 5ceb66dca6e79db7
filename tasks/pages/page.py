"""The shell of every HTML page: one file with its styles, scripts and data, which needs no other file and no network.

A page adapts to dark mode, to narrow screens and to print. Its tables can be sorted. Its content security policy allows
only the scripts that are part of it (by their hash), so that no name of a video can become a script.
"""

import base64
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from data_contracts.errors import printable
from data_contracts.files.credentials import hide_credentials
from tasks.pages.charts import Chart, bokeh_script, to_items
from tasks.pages.table import Code, Heat, Link, Share, State, Table, Tenths

_ROOM = "tasks.pages"
# A heading and what is below it.
Section = tuple[str, Sequence[Table | Chart]]
# Characters that would end the element of a script, or start a comment in it.
_ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def render_page(
    template: str,
    *,
    title: str,
    simulated: str | None = None,
    charts: Sequence[Chart] = (),
    scripts: Sequence[str] = (),
    policy: str = "",
    **content: object,
) -> str:
    """Render a page from a template of this room that extends ``page.html.jinja``.

    Args:
        template: its file name.
        title: heading and title of the page.
        simulated: line that marks a page about simulated data; None for other pages.
        charts: all charts of the page; the template shows each by the macro ``chart``. Without any, the page has no
            Bokeh in it, and is small.
        scripts: JavaScript that runs after the page is parsed, in order.
        policy: further directives of the content security policy, such as ``media-src 'self'``.
        content: variables of the template. Texts are escaped; credentials in them are hidden.
    """
    library = [bokeh_script()] if charts else []
    # A data block is no script: the policy does not concern it.
    items = Markup(to_json(to_items(charts)) if charts else "")
    all_scripts = [*library, read_text("page.js"), *scripts]
    hashes = " ".join(f"'sha256-{_hash(one)}'" for one in all_scripts)
    return (
        _environment()
        .get_template(template)
        .render(
            policy=f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {hashes}"
            + (f"; {policy}" if policy else ""),
            style=Markup(read_text("page.css")),
            scripts=[Markup(one) for one in all_scripts],
            chart_items=items,
            title=title,
            simulated=simulated,
            version=importlib.metadata.version("affwild2"),
            **content,
        )
    )


def to_json(value: object) -> str:
    """Return a value as JSON for an element ``<script type="application/json">``: no text in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character, escaped in _ESCAPED.items():
        text = text.replace(character, escaped)
    return text


def read_text(name: str) -> str:
    """Return the text of a file of this room, such as a style or a script."""
    return files(_ROOM).joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(_ROOM, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: _shown(value) if type(value) is str else value,
    )
    environment.filters["cell"] = _cell
    for kind in (Share, Heat, Code, Link, Tenths, State, Table, Chart):
        environment.tests[kind.__name__.lower()] = lambda value, kind=kind: isinstance(value, kind)
    return environment


def _shown(text: str) -> str:
    """Return the text as a page may show it: file names may hold any bytes, and causes may contain credentials."""
    return printable(hide_credentials(text))


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
