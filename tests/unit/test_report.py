import numpy as np

from automl.publishing.report import ReportContent, build_report
from automl.scoring.interval import Interval


def test_the_report_escapes_what_it_shows_and_refers_to_nothing_outside() -> None:
    evil = "<script>alert('x')</script>"
    page = build_report(
        ReportContent(
            title=evil,
            summary={evil: evil, "rows": 1234},
            metrics={"accuracy": Interval(value=0.98765, low=0.9, high=0.99, n=360)},
            labels=[evil, "b"],
            confusion=np.array([[3, 1], [0, 4]]),
            leaderboard=[{"trial": 3, "score": 0.9, evil: evil}, {"trial": 1, "score": None}],
            strategies=[{"strategy": "random", "trials": 3}],
            architecture=evil,
            curve=[
                {"epoch": 0, "train_loss": 1.5, "selection_loss": 1.6},
                {"epoch": 1, "train_loss": 0.5, "selection_loss": None},
            ],
            notes=[evil],
        )
    ).decode()

    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page
    assert "0.9000 to 0.9900" in page
    assert "<svg" in page
    assert "<polyline" in page


def test_a_report_of_very_many_classes_lists_the_most_frequent_confusions() -> None:
    confusion = np.eye(60, dtype=np.int64)
    confusion[3, 7] = 9
    page = build_report(
        ReportContent(
            title="t",
            summary={},
            metrics={},
            labels=[f"class {number}" for number in range(60)],
            confusion=confusion,
            leaderboard=[],
            strategies=[],
            architecture="a",
            curve=[],
        )
    ).decode()

    assert '<td>class 3</td><td>class 7</td><td class="number">9</td>' in page
    assert page.count("<tr>") == 3  # two headings and that row
