"""Scores and comparisons of predicted classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from automl.scoring.confusion import confusion_rows, worst_confusions
from automl.scoring.interval import Interval
from automl.scoring.metrics import classification_metrics, confusion_matrix
from automl.scoring.promotion import Decision, decide_by_hits
from automl.tracks.track import Outputs, Table, Truth

_MOST_CLASSES = 50  # of a confusion matrix that a page has room for


class ClassificationScores:
    """Metrics of probabilities, and McNemar's test."""

    def metrics(self, outputs: Outputs, truth: Truth) -> Mapping[str, Interval]:
        """Return accuracy, log_loss, balanced_accuracy and macro_f1 with 95 % intervals."""
        return classification_metrics(outputs.values, _columns(outputs, truth))

    def compare(
        self, challenger: Outputs, champion: Outputs, truth: Truth, min_improvement: float
    ) -> Decision:
        """Decide by the rows that only one of both classifies correctly."""
        return decide_by_hits(_hits(challenger, truth), _hits(champion, truth), min_improvement)

    def tables(self, outputs: Outputs, truth: Truth) -> Sequence[Table]:
        """Return the confusion matrix; for very many classes the most frequent confusions."""
        labels = outputs.labels
        matrix = confusion_matrix(
            outputs.values.argmax(axis=1), _columns(outputs, truth), len(labels)
        )
        if len(labels) > _MOST_CLASSES:
            worst = worst_confusions(matrix, labels, _MOST_CLASSES)
            return [Table("Most frequent confusions", "", worst)]
        title = "true class"
        while title in labels:
            title += " "
        note = "Rows: true class; columns: predicted class."
        return [Table("Confusion matrix", note, confusion_rows(matrix, labels, title), title)]


def _columns(outputs: Outputs, truth: Truth) -> NDArray[np.int64]:
    """Return the column of each row's true class."""
    places = {label: place for place, label in enumerate(outputs.labels)}
    of_class = np.array([places.get(label, -1) for label in truth.labels], np.int64)
    columns: NDArray[np.int64] = of_class[np.asarray(truth.values, np.int64)]
    return columns


def _hits(outputs: Outputs, truth: Truth) -> NDArray[np.bool_]:
    """Return which rows are classified correctly; a class that is not known never is."""
    predicted = np.asarray(outputs.labels, object)[outputs.values.argmax(axis=1)]
    expected = np.asarray(truth.labels, object)[np.asarray(truth.values, np.int64)]
    return np.asarray(predicted == expected, np.bool_)
