import numpy as np

from automl.scoring.confusion import confusion_rows, worst_confusions


def test_a_row_tells_what_a_true_class_was_predicted_as() -> None:
    rows = confusion_rows(np.array([[3, 1], [0, 4]]), ["a", "b"], "true")

    assert rows == [{"true": "a", "a": 3, "b": 1}, {"true": "b", "a": 0, "b": 4}]


def test_the_worst_confusions_come_first_and_hits_are_none() -> None:
    matrix = np.array([[9, 1, 0], [5, 9, 0], [2, 0, 9]])

    assert worst_confusions(matrix, ["a", "b", "c"], 2) == [
        {"true": "b", "predicted": "a", "rows": 5},
        {"true": "c", "predicted": "a", "rows": 2},
    ]
    assert len(worst_confusions(matrix, ["a", "b", "c"], 9)) == 3
    assert matrix[0, 0] == 9
