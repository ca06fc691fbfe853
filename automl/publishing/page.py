"""Pages: HTML files without any outside reference, without scripts, for any screen and paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType

_NONE: Mapping[str, str] = MappingProxyType({})
# A browser that obeys it loads nothing and runs nothing, whatever the names that a page shows hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
:root{color-scheme:light dark;--ink:#1c2127;--soft:#56606b;--line:#d3d9e0;--paper:#fff;
--panel:#f5f7f9;--link:#0a58a8;--hit:#dff0d8;--miss:#f8d7da}
@media (prefers-color-scheme:dark){:root{--ink:#e4e8ec;--soft:#a4adb7;--line:#3b444e;
--paper:#14181c;--panel:#1e242a;--link:#79b8ff;--hit:#1f4a2a;--miss:#5c2329}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;
color:var(--ink);background:var(--paper);overflow-wrap:anywhere}
h1,h2,h3{line-height:1.25}h2{margin-top:2.2rem}a{color:var(--link)}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}
th,td{border:1px solid var(--line);padding:.2rem .6rem;text-align:left;vertical-align:top;
overflow-wrap:break-word}
td.number{text-align:right;white-space:nowrap}
.scroll{overflow-x:auto}.hit{background:var(--hit)}.miss{background:var(--miss)}
svg{max-width:100%;height:auto}svg text:not([fill]){fill:currentColor}
"""


def page(
    title: str, parts: Sequence[str], style: str = "", told: Mapping[str, str] = _NONE
) -> bytes:
    """Return a page as UTF-8 HTML.

    Args:
        title: of the page, for the browser's tab.
        parts: of its body, as HTML: what comes from outside is escaped already.
        style: more rules of CSS.
        told: what the page tells programs, by name.
    """
    metadata = "".join(
        f'<meta name="{escape(name)}" content="{escape(value)}">' for name, value in told.items()
    )
    head = (
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{metadata}',
        f"<style>{_STYLE}{style}</style></head><body>",
    )
    # a lone surrogate is no text that UTF-8 has
    return "\n".join([*head, *parts, "</body></html>\n"]).encode(errors="backslashreplace")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table; whatever it is given is escaped.

    Args:
        head: titles of the columns; no line of them if all are "".
        rows: values of each row, as many as columns.
    """
    titles = "".join(f"<th>{escape(name)}</th>" for name in head)
    heading = f"<tr>{titles}</tr>" if any(head) else ""
    body = "".join(f"<tr>{''.join(cell(value) for value in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>{heading}{body}</table></div>'


def cell(value: object, shade: str = "") -> str:
    """Return a cell of a table: numbers to the right, text escaped, a dash for None.

    Args:
        value: what it holds.
        shade: further classes of a number's cell, after a blank.
    """
    if value is None:
        return "<td>&ndash;</td>"
    if isinstance(value, float):
        return f'<td class="number{shade}">{value:.4g}</td>'
    if isinstance(value, int) and not isinstance(value, bool):
        return f'<td class="number{shade}">{value:,}</td>'
    return f"<td>{escape(str(value))}</td>"
