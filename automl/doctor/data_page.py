"""The data report as a page: an inspection, and the exhibits of its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from automl.data.exhibits import Exhibit, Exhibits, RowName
from automl.data.findings import MOST_EXAMPLES
from automl.data.issues import Issue, IssueKind
from automl.doctor import data_charts as charts
from automl.doctor.inspection import (
    CHANGES,
    FINDINGS,
    ISSUES,
    LEFT_OUT,
    OF_ISSUES,
    DataProblem,
    Inspection,
    Topic,
)
from automl.domain.layout import MANIFEST_FILE
from automl.publishing.page import page, table

MOST_SAMPLED, PER_LABEL = 20, 5  # classes that are shown in pictures, and pictures of each
MOST_LABELS, FEWEST_LABELS = 40, 10  # classes of the chart, and how many of them are the smallest
MOST_PROBLEMS, MOST_REASONS, MOST_STATISTICS, MOST_PAIRS = 20, 12, 36, 20
_SHOWN_ISSUES: Mapping[IssueKind, int] = {IssueKind.LABEL_ERROR: 18}  # of each kind in pictures
_MOST_ISSUES = 6  # of another
_LONG = 120  # characters of a text that is shown whole
_SEVERE = ' class="severe"'
_LISTED = f"rows; {MANIFEST_FILE} beside this page has all of them"

_OVERVIEW = Topic("overview", "What to look at first")
_CLASSES = Topic("classes", "Rows by part and class")
_SAMPLES = Topic("samples", "Samples of the classes")
_STATISTICS = Topic("statistics", "Distributions")
_CONFUSED = Topic("confused", "Classes that are often confused")
_NOTES = Topic("notes", "Notes")

STYLE = (
    charts.STYLE
    + """
header p{margin:.2rem 0;color:var(--soft)}h1{margin-bottom:.3rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8rem,1fr));gap:.7rem;
margin:1.2rem 0}
.tiles div{background:var(--panel);border:1px solid var(--line);border-radius:6px;
padding:.5rem .8rem}
.tiles b{display:block;font-size:1.5rem;line-height:1.3;font-variant-numeric:tabular-nums}
.tiles span{color:var(--soft);font-size:14px}
nav ul{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;padding:0;list-style:none}
.problems{padding:0;list-style:none}
.problems li{border-left:4px solid var(--line);padding:.15rem .8rem;margin:.4rem 0}
.problems a{color:inherit;text-decoration-color:var(--line);text-underline-offset:.2em}
.problems a:hover{text-decoration-color:currentColor}
.problems li.severe{border-color:var(--p4)}.problems b{color:var(--p4)}
.soft{color:var(--soft)}
dl{display:grid;grid-template-columns:fit-content(40%) minmax(0,1fr);gap:.2rem 1.2rem}
dt{color:var(--soft)}dd{margin:0}
.gallery{display:grid;gap:1rem;
grid-template-columns:repeat(auto-fill,minmax(min(100%,10.5rem),1fr))}
.gallery.pairs{grid-template-columns:repeat(auto-fill,minmax(min(100%,15rem),1fr))}
.gallery figure{margin:0;background:var(--panel);border:1px solid var(--line);border-radius:6px;
padding:.7rem}
.gallery figcaption{font-size:13.5px;line-height:1.4;margin-top:.4rem}
.pictures{display:flex;flex-wrap:wrap;gap:.5rem}
.pictures img{display:block;width:96px;height:auto;border-radius:3px}
.samples{display:grid;gap:.9rem 2rem;
grid-template-columns:repeat(auto-fill,minmax(min(100%,33rem),1fr))}
.samples img{width:min(96px,(100% - 2rem)/5)}
.samples h3{margin:0 0 .3rem;font-size:15px}
.unseen{width:96px;height:96px;display:flex;align-items:center;justify-content:center;
text-align:center;font-size:12px;color:var(--soft);border:1px dashed var(--line);border-radius:3px}
"""
)


@dataclass(frozen=True, slots=True)
class _Section:
    topic: Topic
    parts: Sequence[str]


def shown_labels(inspection: Inspection, most: int, fewest: int) -> list[str]:
    """Return labels of classes by their rows: the largest, and the smallest if there are more.

    Args:
        inspection: has the classes.
        most: how many labels, at most.
        fewest: how many of them are those of the smallest classes where not all are shown.
    """
    rows = inspection.rows_per_label
    order = sorted(rows, key=lambda label: (-rows[label], label))
    return order if len(order) <= most else [*order[: most - fewest], *order[-fewest:]]


def sampled_labels(inspection: Inspection) -> list[str]:
    """Return the classes that samples are shown of."""
    return shown_labels(inspection, MOST_SAMPLED, FEWEST_LABELS // 2)


def shown_issues(inspection: Inspection) -> Mapping[IssueKind, Sequence[Issue]]:
    """Return the issues that are shown, by kind; those of a kind that are shown one by one."""
    found: dict[IssueKind, list[Issue]] = {}
    for issue in () if inspection.audit is None else inspection.audit.found.issues:
        shown = found.setdefault(issue.kind, [])
        if len(shown) < _SHOWN_ISSUES.get(issue.kind, _MOST_ISSUES):
            shown.append(issue)
    return found


def names_of(issue: Issue) -> list[RowName]:
    """Return the rows that an issue is about."""
    own = RowName(issue.path, issue.part)
    return [own, RowName(issue.related)] if issue.related else [own]


def build_page(inspection: Inspection, exhibits: Exhibits, told: Mapping[str, str]) -> bytes:
    """Return the data report as UTF-8 HTML; whatever it is given is escaped.

    Args:
        inspection: what the snapshot holds.
        exhibits: pictures of rows; see `sampled_labels` and `shown_issues`.
        told: what the page tells programs, by name.
    """
    sections = [each for each in _sections(inspection, exhibits) if each.parts]
    contents = "".join(
        f'<li><a href="#{each.topic.anchor}">{escape(each.topic.title)}</a></li>'
        for each in sections
    )
    envelope = inspection.envelope
    body = [
        _header(inspection),
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav><main>',
    ]
    for each in sections:
        heading = f'<h2 id="{each.topic.anchor}">{escape(each.topic.title)}</h2>'
        body += ["<section>", heading, *each.parts, "</section>"]
    command = f"automl data inspect {envelope.dataset}@{envelope.id}"
    body.append(
        f'</main><footer><p class="soft">The snapshot is the truth, this page is made from it: '
        f"<code>{escape(command)}</code> makes it again, and with <code>--json</code> tells all "
        "of it to programs.</p></footer>"
    )
    return page(f"Data report: {envelope.dataset}", body, STYLE, told)


def _header(inspection: Inspection) -> str:
    envelope, labels = inspection.envelope, inspection.rows_per_label
    profile, issues = envelope.profile, sum(inspection.issue_counts.values())
    suspicious = sum(change.is_suspicious for change in inspection.changes)
    tiles = {
        "rows": inspection.rows,
        **({"classes": len(labels)} if labels else {}),
        "rows left out": len(envelope.quarantined) + len(envelope.excluded),
        **({} if profile is None else {"exact copies": profile.duplicates}),
        **({} if inspection.before is None else {"suspicious changes": suspicious}),
        **({} if inspection.audit is None else {"rows to look at": issues}),
    }
    shown = "".join(f"<div><b>{n:,}</b><span>{name}</span></div>" for name, n in tiles.items())
    return (
        f"<header><h1>Data of {escape(envelope.dataset)}</h1>"
        f"<p>Snapshot <code>{escape(envelope.id)}</code>, made from "
        f"{_name(envelope.source)}</p></header>"
        f'<div class="tiles">{shown}</div>'
    )


def _sections(inspection: Inspection, exhibits: Exhibits) -> Iterator[_Section]:
    yield _Section(_OVERVIEW, [_problems(inspection.problems()), _facts(exhibits.facts)])
    yield _Section(_CLASSES, list(_balance(inspection)))
    yield _Section(_SAMPLES, list(_samples(inspection, exhibits)))
    yield _Section(_STATISTICS, list(_statistics(inspection)))
    yield _Section(CHANGES, list(_changes(inspection)))
    yield _Section(ISSUES, list(_issues(inspection, exhibits)))
    yield _Section(_CONFUSED, list(_confused(inspection)))
    yield _Section(LEFT_OUT, list(_left_out(inspection)))
    yield _Section(FINDINGS, list(_findings(inspection)))
    yield _Section(
        _NOTES, [f"<p>{_name(_upper(note), 6 * _LONG)}</p>" for note in inspection.notes]
    )


def _problems(problems: Sequence[DataProblem]) -> str:
    if not problems:
        return "<p>Nothing that a person should look at was found.</p>"
    lines = "".join(
        f"<li{_SEVERE if each.is_severe else ''}>{'<b>!</b> ' if each.is_severe else ''}"
        f'<a href="#{each.topic.anchor}">{_name(_upper(each.message), 2 * _LONG)}</a></li>'
        for each in problems[:MOST_PROBLEMS]
    )
    return f'<ul class="problems">{lines}</ul>' + _more(len(problems), MOST_PROBLEMS)


def _facts(facts: Mapping[str, str]) -> str:
    lines = "".join(
        f"<dt>{escape(name)}</dt><dd>{_name(text)}</dd>" for name, text in facts.items()
    )
    return f"<dl>{lines}</dl>" if lines else ""


def _balance(inspection: Inspection) -> Iterator[str]:
    parts = dict(sorted(inspection.envelope.counts.items(), key=lambda each: -each[1]))
    yield charts.legend(parts)
    rows = inspection.rows_per_label
    if not rows:
        shares = list(parts.items())
        yield charts.bar("all rows", inspection.rows, shares, max(inspection.rows, 1))
        return
    labels = shown_labels(inspection, MOST_LABELS, FEWEST_LABELS)
    per_part, most = inspection.exhibits.rows_per_part, max(1, *rows.values())
    for label in labels:
        counts = [(part, per_part[label].get(part, 0)) for part in parts if label in per_part]
        yield charts.bar(shortened(label), rows[label], counts, most)
    if len(rows) > len(labels):
        middle = sorted(rows.values())[len(rows) // 2]
        yield (
            f'<p class="soft">The {MOST_LABELS - FEWEST_LABELS} largest classes and the '
            f"{FEWEST_LABELS} smallest of {len(rows):,}; half of the classes have {middle:,} rows "
            "or fewer.</p>"
        )


def _samples(inspection: Inspection, exhibits: Exhibits) -> Iterator[str]:
    yield from (f'<p class="soft">{_name(note, 3 * _LONG)}</p>' for note in exhibits.notes)
    if not exhibits.samples:
        return
    shown = "".join(
        f'<div><h3>{_name(label)} <span class="soft">{inspection.rows_per_label.get(label, 0):,} '
        f'rows</span></h3><div class="pictures">'
        f"{''.join(_picture(each, label) for each in rows)}</div></div>"
        for label, rows in exhibits.samples.items()
    )
    yield f'<div class="samples">{shown}</div>'
    yield _more(len(inspection.rows_per_label), len(exhibits.samples), "classes")


def _statistics(inspection: Inspection) -> Iterator[str]:
    statistics = inspection.statistics
    if not statistics:
        return
    previous = {} if inspection.previous is None else inspection.previous.statistics
    compared = {
        name: previous[name]
        for name, now in statistics.items()
        if name in previous and previous[name].bins == now.bins
    }
    if compared:
        yield (
            '<ul class="legend"><li><i class="p0"></i>this snapshot</li><li><i class="p1"></i>'
            f"<code>{escape(str(inspection.before))}</code>, the one before</li></ul>"
        )
    shown = list(statistics)[:MOST_STATISTICS]
    drawn = "".join(
        charts.histogram(shortened(name), statistics[name], compared.get(name)) for name in shown
    )
    yield f'<div class="charts">{drawn}</div>'
    yield _more(len(statistics), MOST_STATISTICS, "statistics: --json has all of them")


def _changes(inspection: Inspection) -> Iterator[str]:
    if inspection.before is None:
        return
    yield f"<p>Compared with <code>{escape(inspection.before)}</code>, that of the run before.</p>"
    if not inspection.changes:
        yield "<p>Nothing differs.</p>"
        return
    lines = "".join(
        f"<li{_SEVERE if each.is_suspicious else ''}>{'<b>!</b> ' if each.is_suspicious else ''}"
        f"{_name(_upper(each.message), 6 * _LONG)}</li>"
        for each in inspection.changes[:MOST_PROBLEMS]
    )
    yield f'<ul class="problems">{lines}</ul>'
    yield _more(len(inspection.changes), MOST_PROBLEMS)


def _issues(inspection: Inspection, exhibits: Exhibits) -> Iterator[str]:
    if inspection.audit is None:
        return
    counts, shown = inspection.issue_counts, shown_issues(inspection)
    command = f"automl data issues {inspection.envelope.dataset} --csv FILE"
    if counts:
        yield (
            f"<p><code>{escape(command)}</code> writes all of them as a table, which corrects "
            "the data once a person has filled it in.</p>"
        )
    else:
        yield "<p>None.</p>"
    for kind, count in counts.items():
        yield f"<h3>{escape(_upper(OF_ISSUES[kind]))}: {count:,}</h3>"
        figures = "".join(_issue(issue, exhibits) for issue in shown[kind])
        pairs = " pairs" if any(issue.related for issue in shown[kind]) else ""
        yield f'<div class="gallery{pairs}">{figures}</div>'
        yield _more(count, len(shown[kind]), "rows:", command)


def _issue(issue: Issue, exhibits: Exhibits) -> str:
    """Return a row that a person should look at, and the one that it is about, side by side."""
    names = names_of(issue)
    found = [exhibits.rows.get(name) for name in names]
    pictures = ""
    if any(found):
        drawn = (
            '<div class="unseen">not shown</div>' if each is None else _picture(each, issue.label)
            for each in found
        )
        pictures = f'<div class="pictures">{"".join(drawn)}</div>'
    label = _name(issue.label) if issue.label else '<span class="soft">sealed label</span>'
    suggested = f" → <strong>{_name(issue.suggested)}</strong>" if issue.suggested else ""
    related = f"<br>and {_name(issue.related)}" if issue.related else ""
    note = f'<br><span class="soft">{_name(issue.note)}</span>' if issue.note else ""
    return (
        f"<figure>{pictures}<figcaption><strong>{label}</strong>{suggested}<br>"
        f'{_name(issue.path)} <span class="soft">{escape(issue.part)}</span>{related}{note}'
        "</figcaption></figure>"
    )


def _confused(inspection: Inspection) -> Iterator[str]:
    audit = inspection.audit
    if audit is None or not audit.found.pairs:
        return
    yield "<p>Rows of the one that look like the other, by what trials predict.</p>"
    rows = [
        [shortened(audit.classes[pair.given]), shortened(audit.classes[pair.suggested]), pair.rows]
        for pair in audit.found.pairs[:MOST_PAIRS]
    ]
    yield table(["labelled", "looks like", "rows"], rows)
    yield _more(len(audit.found.pairs), MOST_PAIRS, "pairs")


def _left_out(inspection: Inspection) -> Iterator[str]:
    reasons = inspection.left_out()
    for each in reasons[:MOST_REASONS]:
        yield f"<h3>{_name(_upper(each.reason))}: {each.rows:,}</h3><ul>"
        for row in each.examples:
            rest = row.reason.partition(": ")[2]
            yield f"<li>{_name(row.path)}{f': {_name(rest)}' if rest else ''}</li>"
        yield f"</ul>{_more(each.rows, len(each.examples), _LISTED)}"
    yield from filter(None, [_more(len(reasons), MOST_REASONS, "reasons")])
    excluded = inspection.envelope.excluded
    if excluded:
        yield f"<h3>Nearly equal to rows that are asked about later: {len(excluded):,}</h3><ul>"
        for near in excluded[:MOST_EXAMPLES]:
            yield (
                f"<li>{_name(near.path)} of {_name(near.part)}, like {_name(near.near)} of "
                f"{_name(near.near_part)}</li>"
            )
        yield f"</ul>{_more(len(excluded), MOST_EXAMPLES, _LISTED)}"


def _findings(inspection: Inspection) -> Iterator[str]:
    findings = inspection.envelope.findings
    for each in findings[:MOST_REASONS]:
        yield f"<h3>{_name(_upper(each.message), 3 * _LONG)}: {each.count:,}</h3><ul>"
        yield from (f"<li>{_name(example)}</li>" for example in each.examples)
        yield f"</ul>{_more(each.count, len(each.examples))}"
    yield from filter(None, [_more(len(findings), MOST_REASONS)])


def _picture(exhibit: Exhibit, label: str) -> str:
    name = f"{exhibit.name.path}, {label}" if label else exhibit.name.path
    text = escape(shortened(name))
    return f'<img src="{escape(exhibit.uri)}" alt="{text}" title="{text}">'


def _more(count: int, shown: int, what: str = "", command: str = "") -> str:
    """Return how many of what are left out, and what writes all of them; "" if none are."""
    if count <= shown:
        return ""
    names = f" {what}" if what else ""
    how = f" <code>{escape(command)}</code>" if command else ""
    return f'<p class="soft">and {count - shown:,} more{names}{how}</p>'


def _name(text: str, most: int = _LONG) -> str:
    """Return a text from outside, isolated from the direction of what stands around it."""
    return f"<bdi>{escape(shortened(text, most))}</bdi>"


def shortened(text: str, most: int = _LONG) -> str:
    """Return a text, without its middle if it is long: the ends of paths tell them apart."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
