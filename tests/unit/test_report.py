from dataclasses import replace

import pytest

from automl.domain.training import CurvePoint
from automl.publishing.report import ReportContent, build_report, learning_curve_svg
from automl.scoring.interval import Interval
from automl.tracks.track import Table

EMPTY = ReportContent(
    title="t",
    summary={},
    metrics={},
    tables=[],
    curve=[],
    portrait="a",
    leaderboard=[],
    strategies=[],
)


def _page(*tables: Table) -> str:
    return build_report(replace(EMPTY, tables=tables)).decode()


def test_the_report_escapes_what_it_shows_and_refers_to_nothing_outside() -> None:
    evil = "<script>alert('x')</script>"
    page = build_report(
        ReportContent(
            title=evil,
            summary={evil: evil, "rows": 1234},
            metrics={"accuracy": Interval(value=0.98765, low=0.9, high=0.99, n=360)},
            tables=[
                Table(evil, evil, [{"is": evil, evil: 3, "b": 1}], "is"),
                Table(evil, evil, [{evil: evil}]),
            ],
            leaderboard=[{"trial": 3, "score": 0.9, evil: evil}, {"trial": 1, "score": None}],
            strategies=[{"strategy": "random", "trials": 3}],
            portrait=evil,
            curve=[
                CurvePoint(epoch=0, share=0.5, score=None, train_loss=1.5, log_loss=1.6),
                CurvePoint(epoch=1, share=1.0, score=None, train_loss=0.5),
            ],
            notes=[evil],
        )
    ).decode()

    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "://" not in page
    assert "0.9000 to 0.9900" in page
    assert "<svg" in page
    assert "<polyline" in page


def test_a_table_is_shown_with_its_heading_and_note() -> None:
    page = _page(Table("Most frequent confusions", "Of 60.", [{"true": "a", "rows": 9}]))

    assert "<h2>Most frequent confusions</h2><p>Of 60.</p>" in page
    assert '<td>a</td><td class="number">9</td>' in page


def test_a_table_marks_hits_and_misses_of_its_rows() -> None:
    rows = [{"true": "a", "a": 7, "b": 2}, {"true": "b", "a": 0, "b": 0}]

    page = _page(Table("Confusion matrix", "", rows, "true"))

    assert "<tr><th></th><th>a</th><th>b</th></tr>" in page
    assert '<tr><th>a</th><td class="number hit">7</td><td class="number miss">2</td></tr>' in page
    assert '<tr><th>b</th><td class="number">0</td><td class="number">0</td></tr>' in page


@pytest.mark.parametrize("highlight", ["", "true"])
def test_a_table_without_rows_says_so(highlight: str) -> None:
    assert "<h2>Errors</h2><p>None.</p>" in _page(Table("Errors", "", [], highlight))


def _point(epoch: int, score: float | None, loss: float | None = None) -> CurvePoint:
    return CurvePoint(epoch=epoch, share=1.0, score=score, log_loss=loss)


def test_losses_are_drawn_where_there_are_any() -> None:
    drawing = learning_curve_svg([_point(0, 0.5, 2.0), _point(1, 0.6, 1.0)])

    assert "<title>Loss per epoch</title>" in drawing
    assert "selection loss" in drawing
    assert "training loss" not in drawing
    assert "score" not in drawing


def test_scores_are_drawn_where_there_are_no_losses() -> None:
    drawing = learning_curve_svg([_point(0, -1.5), _point(1, None), _point(2, 0.5)])

    assert "<title>Score per epoch</title>" in drawing
    assert ">0.5</text>" in drawing
    assert ">-1.5</text>" in drawing
    assert 'points="44.0,196.0 596.0,22.0"' in drawing


@pytest.mark.parametrize("curve", [[], [_point(0, None)]])
def test_a_curve_without_figures_says_so(curve: list[CurvePoint]) -> None:
    assert learning_curve_svg(curve) == "<p>No epochs.</p>"
