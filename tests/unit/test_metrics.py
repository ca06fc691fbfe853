import numpy as np
import pytest
from scipy.stats import binom

from automl.errors import DataError
from automl.scoring.metrics import (
    accuracy,
    classification_metrics,
    confusion_matrix,
    log_loss,
)


def _rows(n: int, classes: int, skill: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    labels = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes)) + skill * np.eye(classes)[labels]
    probabilities = np.exp(logits)
    return probabilities / probabilities.sum(axis=1, keepdims=True), labels


def test_the_accuracy_interval_is_that_of_clopper_and_pearson() -> None:
    interval = accuracy(355, 360)

    assert interval.value == pytest.approx(355 / 360)
    assert interval.low == pytest.approx(0.9678, abs=1e-4)
    assert interval.high == pytest.approx(0.9955, abs=1e-4)
    assert binom.sf(354, 360, interval.low) == pytest.approx(0.025, abs=1e-6)
    assert binom.cdf(355, 360, interval.high) == pytest.approx(0.025, abs=1e-6)


def test_the_accuracy_interval_of_a_perfect_classifier_ends_at_one() -> None:
    interval = accuracy(20, 20)

    assert interval.high == 1.0
    assert interval.low == pytest.approx(0.025 ** (1 / 20))


def test_metrics_agree_with_scikit_learn() -> None:
    from sklearn import metrics as reference

    probabilities, labels = _rows(500, 5, skill=1.5)
    predicted = probabilities.argmax(axis=1)

    found = classification_metrics(probabilities, labels)

    assert found["accuracy"].value == pytest.approx(reference.accuracy_score(labels, predicted))
    assert found["log_loss"].value == pytest.approx(reference.log_loss(labels, probabilities))
    assert found["balanced_accuracy"].value == pytest.approx(
        reference.balanced_accuracy_score(labels, predicted)
    )
    assert found["macro_f1"].value == pytest.approx(
        reference.f1_score(labels, predicted, average="macro")
    )
    assert (
        confusion_matrix(predicted, labels, 5) == reference.confusion_matrix(labels, predicted)
    ).all()


def test_every_interval_contains_its_value() -> None:
    for metric in classification_metrics(*_rows(300, 4, skill=1.0)).values():
        assert metric.low < metric.value < metric.high
        assert metric.n == 300


def test_intervals_shrink_with_the_number_of_rows() -> None:
    few = classification_metrics(*_rows(100, 3, skill=1.0))
    many = classification_metrics(*_rows(10_000, 3, skill=1.0))

    for name, metric in few.items():
        assert many[name].high - many[name].low < (metric.high - metric.low) / 5


def test_equal_seeds_give_equal_intervals() -> None:
    rows = _rows(80, 3, skill=0.5)

    assert classification_metrics(*rows, seed=[3, 1]) == classification_metrics(*rows, seed=[3, 1])
    assert classification_metrics(*rows, seed=1) != classification_metrics(*rows, seed=2)


def test_a_class_without_rows_does_not_count() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.1, 0.9, 0.0]])

    found = classification_metrics(probabilities, np.array([0, 0, 1]))

    assert found["balanced_accuracy"].value == 1.0
    assert found["macro_f1"].value == 1.0


def test_a_true_class_of_probability_zero_has_a_finite_loss() -> None:
    assert np.isfinite(log_loss(np.array([[1.0, 0.0]]), np.array([1])).high)


def test_metrics_without_rows_are_refused() -> None:
    with pytest.raises(DataError, match=r"0 labels for probabilities of shape \(0, 3\)"):
        classification_metrics(np.zeros((0, 3)), np.zeros(0, dtype=np.int64))


def test_a_label_outside_the_classes_is_refused() -> None:
    with pytest.raises(DataError, match="not among 3 classes"):
        confusion_matrix(np.array([0, 1]), np.array([0, 3]), 3)
