"""The report of a version: one HTML file without any outside reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from automl.domain.training import CurvePoint
from automl.publishing.page import cell, page, table
from automl.scoring.interval import Interval
from automl.tracks.track import Table

_WIDTH, _HEIGHT, _MARGIN = 640, 240, 44
_COLOURS = ("#1f77b4", "#d62728")


@dataclass(frozen=True, slots=True)
class ReportContent:
    """Content of a report.

    Attributes:
        title: the heading.
        summary: facts by name, in order.
        metrics: with their intervals.
        tables: what else the predictions come to.
        curve: the learning curve.
        portrait: what was fitted, in words.
        leaderboard: one mapping of column to value per trial, best first, same columns.
        strategies: one mapping of column to value per strategy, same columns.
        notes: sentences for the reader, such as the reason of a decision.
    """

    title: str
    summary: Mapping[str, object]
    metrics: Mapping[str, Interval]
    tables: Sequence[Table]
    curve: Sequence[CurvePoint]
    portrait: str
    leaderboard: Sequence[Mapping[str, object]]
    strategies: Sequence[Mapping[str, object]]
    notes: Sequence[str] = field(default=())


def build_report(content: ReportContent) -> bytes:
    """Return the report as UTF-8 HTML; whatever it is given is escaped."""
    return page(
        content.title,
        [
            f"<h1>{escape(content.title)}</h1>",
            table(["", ""], [[name, value] for name, value in content.summary.items()]),
            *(f"<p>{escape(note)}</p>" for note in content.notes),
            "<h2>Metrics</h2>",
            _metrics(content.metrics),
            *(_section(each) for each in content.tables),
            "<h2>Learning curve</h2>",
            learning_curve_svg(content.curve),
            "<h2>Candidate</h2>",
            f"<p><code>{escape(content.portrait)}</code></p>",
            "<h2>Leaderboard</h2>",
            _rows(content.leaderboard, "No trials."),
            "<h2>Strategies</h2>",
            "<p>What random search gives is there too: a share of the trials is proposed at random."
            " Each strategy is judged by as many trials as the one with the fewest has.</p>",
            _rows(content.strategies, "All trials are seeds."),
        ],
    )


def _metrics(metrics: Mapping[str, Interval]) -> str:
    rows = [
        [name, metric.value, f"{metric.low:.4f} to {metric.high:.4f}", metric.n]
        for name, metric in metrics.items()
    ]
    return table(["metric", "value", "95 % interval", "rows"], rows)


def _rows(rows: Sequence[Mapping[str, object]], without: str) -> str:
    if not rows:
        return f"<p>{without}</p>"
    columns = list(rows[0])
    return table(columns, [[row.get(column) for column in columns] for row in rows])


def _section(shown: Table) -> str:
    note = f"<p>{escape(shown.note)}</p>" if shown.note else ""
    is_marked = shown.highlight and shown.rows
    body = _highlighted(shown) if is_marked else _rows(shown.rows, "None.")
    return f"<h2>{escape(shown.title)}</h2>{note}{body}"


def _highlighted(shown: Table) -> str:
    """Return a table whose rows begin with the column that is right, its cell marked as a hit."""
    columns = [column for column in shown.rows[0] if column != shown.highlight]
    head = "".join(f"<th>{escape(column)}</th>" for column in ["", *columns])
    lines = []
    for row in shown.rows:
        right = str(row[shown.highlight])
        cells = "".join(
            cell(row[column], _shade(is_hit=column == right, is_empty=not row[column]))
            for column in columns
        )
        lines.append(f"<tr><th>{escape(right)}</th>{cells}</tr>")
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def _shade(*, is_hit: bool, is_empty: bool) -> str:
    if is_empty:
        return ""
    return " hit" if is_hit else " miss"


def learning_curve_svg(curve: Sequence[CurvePoint]) -> str:
    """Return the losses over the epochs as inline SVG; the score where there are none."""
    losses = {
        "training loss": [point.train_loss for point in curve],
        "selection loss": [point.log_loss for point in curve],
    }
    if not any(value is not None for values in losses.values() for value in values):
        return _chart("Score", {"score": [point.score for point in curve]})
    return _chart("Loss", losses)


def _chart(title: str, series: Mapping[str, Sequence[float | None]]) -> str:
    """Return lines over the epochs, from zero up; a value of None leaves a gap."""
    lines = {
        name: [(place, value) for place, value in enumerate(values) if value is not None]
        for name, values in series.items()
    }
    known = [value for points in lines.values() for _, value in points]
    if not known:
        return "<p>No epochs.</p>"
    bottom, top = min(0.0, *known), max(0.0, *known)
    top = top if top > bottom else bottom + 1.0
    epochs = max(len(values) for values in series.values())
    drawn = [
        _line(points, epochs, (bottom, top), colour) + _legend(name, place, colour)
        for place, ((name, points), colour) in enumerate(zip(lines.items(), _COLOURS, strict=False))
        if points
    ]
    right, base = _WIDTH - _MARGIN, _HEIGHT - _MARGIN
    axes = (
        f'<path d="M{_MARGIN},{_MARGIN / 2:.0f} V{base} H{right}" fill="none" stroke="#888"/>'
        f'<text x="4" y="{_MARGIN / 2 + 4:.0f}">{top:.3g}</text>'
        f'<text x="4" y="{base}">{bottom:.3g}</text>'
        f'<text x="{right - 60}" y="{_HEIGHT - 14}">epoch {epochs}</text>'
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" font-size="12">'
        f"<title>{title} per epoch</title>{axes}{''.join(drawn)}</svg>"
    )


def _line(
    points: Sequence[tuple[int, float]], epochs: int, span: tuple[float, float], colour: str
) -> str:
    across = (_WIDTH - 2 * _MARGIN) / max(epochs - 1, 1)
    height = (_HEIGHT - 1.5 * _MARGIN) / (span[1] - span[0])
    places = [
        f"{_MARGIN + across * epoch:.1f},{_HEIGHT - _MARGIN - height * (value - span[0]):.1f}"
        for epoch, value in points
    ]
    if len(places) == 1:
        x, y = places[0].split(",")
        return f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>'
    return f'<polyline points="{" ".join(places)}" fill="none" stroke="{colour}"/>'


def _legend(name: str, place: int, colour: str) -> str:
    x = _MARGIN + 12 + 90 * place
    return f'<text x="{x}" y="{_HEIGHT - 14}" fill="{colour}">{name}</text>'
