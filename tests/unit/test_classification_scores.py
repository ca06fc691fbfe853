import numpy as np
import pytest

from automl.errors import DataError
from automl.tracks.image.scores import ClassificationScores
from automl.tracks.track import Outputs, Truth

SCORES = ClassificationScores()
TRUTH = Truth(np.array([0, 1, 1, 0]), ("a", "b"))


def _outputs(*columns: int, labels: tuple[str, ...] = ("a", "b")) -> Outputs:
    """Return probabilities of which each row's largest is in that column."""
    return Outputs(np.eye(len(labels))[list(columns)] * 0.8 + 0.1, labels)


def test_truths_and_outputs_may_count_their_classes_differently() -> None:
    swapped = _outputs(1, 0, 1, 1, labels=("b", "a"))

    assert SCORES.metrics(swapped, TRUTH)["accuracy"].value == 0.75
    (table,) = SCORES.tables(swapped, TRUTH)
    assert list(table.rows) == [
        {"true class": "b", "b": 1, "a": 1},
        {"true class": "a", "b": 0, "a": 2},
    ]


def test_a_class_that_the_file_does_not_know_has_no_metrics() -> None:
    with pytest.raises(DataError, match="not among 2 classes"):
        SCORES.metrics(_outputs(0, 1, 1, 0, labels=("a", "c")), TRUTH)


def test_a_champion_that_does_not_know_a_class_misses_its_rows() -> None:
    decision = SCORES.compare(
        _outputs(0, 1, 1, 0), _outputs(0, 1, 1, 0, labels=("a", "c")), TRUTH, 0.0
    )

    assert "2 of 4 gate rows won and 0 lost" in decision.reason


def test_the_heading_of_the_true_class_is_no_class() -> None:
    labels = ("a", "true class")
    truth = Truth(np.array([0, 1]), labels)

    (table,) = SCORES.tables(_outputs(0, 0, labels=labels), truth)

    assert table.highlight not in labels
    assert list(table.rows) == [
        {table.highlight: "a", "a": 1, "true class": 0},
        {table.highlight: "true class", "a": 1, "true class": 0},
    ]


def test_of_very_many_classes_the_most_frequent_confusions_are_shown() -> None:
    labels = tuple(f"class {number}" for number in range(60))
    truth = Truth(np.array([*range(60), 3, 3]), labels)

    (table,) = SCORES.tables(_outputs(*range(60), 7, 7, labels=labels), truth)

    assert list(table.rows) == [{"true": "class 3", "predicted": "class 7", "rows": 2}]
    assert table.highlight == ""
