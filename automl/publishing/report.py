"""The report of a version: one HTML file without any outside reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from automl.scoring.interval import Interval

Array = np.ndarray[Any, Any]

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;"
    "color:#222}table{border-collapse:collapse;margin:.5rem 0 1.5rem}th,td{border:1px solid #ccc;"
    "padding:.2rem .6rem;text-align:left}td.number{text-align:right}"
    ".scroll{overflow-x:auto}.hit{background:#dff0d8}.miss{background:#f8d7da}"
)
_WIDTH, _HEIGHT, _MARGIN = 640, 240, 44
_MOST_CLASSES = 50


@dataclass(frozen=True, slots=True)
class ReportContent:
    """What a report shows.

    Attributes:
        title: the heading.
        summary: facts by name, in order.
        metrics: with their intervals.
        labels: classes in the order of the confusion matrix.
        confusion: counts `[true class, predicted class]`.
        leaderboard: one mapping of column to value per trial, best first, same columns.
        strategies: one mapping of column to value per strategy, same columns.
        architecture: the architecture's summary.
        curve: one mapping per epoch with `train_loss` and, where measured, `selection_loss`.
        notes: sentences for the reader, such as the reason of a decision.
    """

    title: str
    summary: Mapping[str, object]
    metrics: Mapping[str, Interval]
    labels: Sequence[str]
    confusion: Array
    leaderboard: Sequence[Mapping[str, object]]
    strategies: Sequence[Mapping[str, object]]
    architecture: str
    curve: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = field(default=())


def build_report(content: ReportContent) -> bytes:
    """Return the report as UTF-8 HTML; whatever it is given is escaped."""
    title = escape(content.title)
    notes = "".join(f"<p>{escape(note)}</p>" for note in content.notes)
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1>",
        _table(["", ""], [[name, value] for name, value in content.summary.items()]),
        notes,
        "<h2>Metrics</h2>",
        _metrics(content.metrics),
        "<h2>Confusion matrix</h2>",
        _confusion(content.labels, content.confusion),
        "<h2>Learning curve</h2>",
        learning_curve_svg(content.curve),
        "<h2>Architecture</h2>",
        f"<p><code>{escape(content.architecture)}</code></p>",
        "<h2>Leaderboard</h2>",
        _rows(content.leaderboard, "No trials."),
        "<h2>Strategies</h2>",
        "<p>What random search gives is there too: a share of the trials is proposed at random. "
        "Each strategy is judged by as many trials as the one with the fewest has.</p>",
        _rows(content.strategies, "All trials are seeds."),
        "</body></html>\n",
    ]
    return "\n".join(parts).encode()


def _metrics(metrics: Mapping[str, Interval]) -> str:
    rows = [
        [name, metric.value, f"{metric.low:.4f} to {metric.high:.4f}", metric.n]
        for name, metric in metrics.items()
    ]
    return _table(["metric", "value", "95 % interval", "rows"], rows)


def _rows(rows: Sequence[Mapping[str, object]], without: str) -> str:
    if not rows:
        return f"<p>{without}</p>"
    columns = list(rows[0])
    return _table(columns, [[row.get(column) for column in columns] for row in rows])


def _confusion(labels: Sequence[str], matrix: Array) -> str:
    """Return the matrix, for very many classes only the most frequent confusions."""
    if len(labels) > _MOST_CLASSES:
        errors = np.array(matrix)
        np.fill_diagonal(errors, 0)
        worst = np.argsort(-errors, axis=None, kind="stable")[:_MOST_CLASSES]
        pairs = [np.unravel_index(cell, errors.shape) for cell in worst]
        rows = [[labels[t], labels[p], int(errors[t, p])] for t, p in pairs if errors[t, p]]
        return _table(["true", "predicted", "rows"], rows)
    head = "".join(f"<th>{escape(label)}</th>" for label in labels)
    lines = []
    for true, label in enumerate(labels):
        cells = "".join(
            f'<td class="number{_shade(true == predicted, count)}">{count}</td>'
            for predicted, count in enumerate(int(value) for value in matrix[true])
        )
        lines.append(f"<tr><th>{escape(label)}</th>{cells}</tr>")
    return (
        '<p>Rows: true class; columns: predicted class.</p><div class="scroll"><table>'
        f"<tr><th></th>{head}</tr>{''.join(lines)}</table></div>"
    )


def _shade(is_hit: bool, count: int) -> str:  # noqa: FBT001 - a fact about the cell, not a mode
    if not count:
        return ""
    return " hit" if is_hit else " miss"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    titles = "".join(f"<th>{escape(name)}</th>" for name in head)
    heading = f"<tr>{titles}</tr>" if any(head) else ""
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>{heading}{body}</table></div>'


def _cell(value: object) -> str:
    if value is None:
        return "<td>&ndash;</td>"
    if isinstance(value, float):
        return f'<td class="number">{value:.4g}</td>'
    if isinstance(value, int) and not isinstance(value, bool):
        return f'<td class="number">{value:,}</td>'
    return f"<td>{escape(str(value))}</td>"


def learning_curve_svg(curve: Sequence[Mapping[str, Any]]) -> str:
    """Return training and selection loss over the epochs as inline SVG."""
    series = {
        name: [
            (place, float(point[key]))
            for place, point in enumerate(curve)
            if point.get(key) is not None
        ]
        for name, key in (("training", "train_loss"), ("selection", "selection_loss"))
    }
    values = [value for points in series.values() for _, value in points]
    if not values:
        return "<p>No epochs.</p>"
    top = max(values) or 1.0
    lines = [
        _line(points, len(curve), top, colour) + _legend(name, place, colour)
        for place, ((name, points), colour) in enumerate(
            zip(series.items(), ("#1f77b4", "#d62728"), strict=True)
        )
        if points
    ]
    right, bottom = _WIDTH - _MARGIN, _HEIGHT - _MARGIN
    axes = (
        f'<path d="M{_MARGIN},{_MARGIN / 2:.0f} V{bottom} H{right}" fill="none" stroke="#888"/>'
        f'<text x="4" y="{_MARGIN / 2 + 4:.0f}">{top:.3g}</text><text x="4" y="{bottom}">0</text>'
        f'<text x="{right - 60}" y="{_HEIGHT - 14}">epoch {len(curve)}</text>'
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" font-size="12">'
        f"<title>Loss per epoch</title>{axes}{''.join(lines)}</svg>"
    )


def _line(points: Sequence[tuple[int, float]], epochs: int, top: float, colour: str) -> str:
    across = (_WIDTH - 2 * _MARGIN) / max(epochs - 1, 1)
    height = _HEIGHT - 1.5 * _MARGIN
    places = [
        f"{_MARGIN + across * epoch:.1f},{_HEIGHT - _MARGIN - height * value / top:.1f}"
        for epoch, value in points
    ]
    if len(places) == 1:
        x, y = places[0].split(",")
        return f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>'
    return f'<polyline points="{" ".join(places)}" fill="none" stroke="{colour}"/>'


def _legend(name: str, place: int, colour: str) -> str:
    x = _MARGIN + 12 + 90 * place
    return f'<text x="{x}" y="{_HEIGHT - 14}" fill="{colour}">{name} loss</text>'
