from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from automl.data import label_errors
from automl.data.label_errors import (
    PRIOR_ROWS,
    ConfusedPair,
    MeanProbabilities,
    class_thresholds,
    find_label_errors,
    together,
)

SURE, UNSURE = [0.9, 0.1, 0.0], [0.5, 0.3, 0.2]


def probabilities(rows: list[list[float]]) -> np.ndarray:
    return np.array(rows, np.float64)


def labels(rows: list[int]) -> np.ndarray:
    return np.array(rows, np.int64)


def flipped_digits(confused: dict[int, int] | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return probabilities out of sample, labels of which 5 % are wrong, and which ones are."""
    x, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(5)
    chosen = rng.choice(len(y), round(0.05 * len(y)), replace=False)
    wrong = y.copy()
    wrong[chosen] = (y[chosen] + rng.integers(1, 10, len(chosen))) % 10
    if confused is not None:
        wrong[chosen] = [confused.get(one, one) for one in y[chosen].tolist()]
    model = KNeighborsClassifier(20, weights="distance")
    values = cross_val_predict(model, x, wrong, cv=4, method="predict_proba")
    return values, wrong.astype(np.int64), wrong != y


def test_a_row_that_surely_looks_like_another_class_is_flagged() -> None:
    values = probabilities([*[SURE] * 9, *[[0.1, 0.9, 0.0]] * 9, [0.05, 0.95, 0.0]])

    found = find_label_errors(values, labels([*[0] * 9, *[1] * 9, 0]))

    assert found.flagged.nonzero()[0].tolist() == [18]
    assert found.order[0] == 18
    assert found.suggested[18] == 1
    assert found.pairs == (ConfusedPair(given=0, suggested=1, rows=1),)
    assert found.shown()[0] == 18


def test_a_row_that_looks_like_another_class_less_than_its_members_do_is_not_flagged() -> None:
    values = probabilities([*[SURE] * 9, *[[0.1, 0.9, 0.0]] * 9, [0.4, 0.6, 0.0]])

    found = find_label_errors(values, labels([*[0] * 9, *[1] * 9, 0]))

    assert not found.flagged.any()
    assert found.shown().size == 0
    assert found.order[0] == 18


def test_a_threshold_is_the_mean_probability_of_the_classs_rows_and_of_two_average_ones() -> None:
    values = probabilities([SURE, SURE, UNSURE, [0.2, 0.8, 0.0]])

    thresholds, average = class_thresholds(values, labels([0, 0, 0, 1]))

    assert average == pytest.approx((0.9 + 0.9 + 0.5 + 0.8) / 4)
    expected = [(2.3 + 2 * average) / 5, (0.8 + 2 * average) / 3, average]
    np.testing.assert_allclose(thresholds, expected)
    assert PRIOR_ROWS == 2


def test_one_lucky_row_does_not_make_a_small_class_suspicious() -> None:
    values = probabilities([*[[0.96, 0.02, 0.02]] * 30, [0.79, 0.01, 0.2], [0.81, 0.0, 0.19]])

    given_ = labels([0] * 30 + [0, 2])  # class 2 has the last row alone
    found = find_label_errors(values, given_)

    assert not found.flagged[30]
    assert class_thresholds(values, given_)[0][2] > 0.2


@pytest.mark.parametrize("confused", [None, {3: 8, 8: 3, 1: 7, 7: 1, 5: 9, 9: 5, 4: 6, 6: 4}])
def test_wrong_labels_of_digits_come_first(confused: dict[int, int] | None) -> None:
    values, wrong, is_flipped = flipped_digits(confused)
    flips = int(is_flipped.sum())

    found = find_label_errors(values, wrong)

    hits = is_flipped[found.order]
    assert hits[:flips].mean() >= 0.7
    assert hits[: 2 * flips].sum() >= 0.7 * flips
    assert is_flipped[found.shown()].sum() >= 0.7 * flips
    by_label = is_flipped[np.argsort(values[np.arange(len(wrong)), wrong], kind="stable")]
    assert hits[:flips].sum() >= by_label[:flips].sum() - 1
    assert hits[: 2 * flips].sum() >= by_label[: 2 * flips].sum() - 1


def test_flagged_rows_tell_which_classes_are_confused() -> None:
    looks = np.repeat([0, 1, 2], 20)
    given_ = looks.copy()
    given_[[1, 2, 3]], given_[[41, 42]] = 2, 1

    pairs = find_label_errors(np.eye(3)[looks] * 0.7 + 0.1, given_).pairs

    assert pairs == (ConfusedPair(2, 0, 3), ConfusedPair(1, 2, 2))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), block=st.integers(1, 9))
def test_blocks_change_nothing(seed: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    values, given_ = rng.dirichlet([0.5] * 4, 23), rng.integers(0, 4, 23)
    whole = find_label_errors(values, given_)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_errors, "BLOCK_ROWS", block)
        parts = find_label_errors(values, given_)

    np.testing.assert_allclose(parts.scores, whole.scores)
    np.testing.assert_array_equal(parts.order, whole.order)
    np.testing.assert_array_equal(parts.flagged, whole.flagged)
    assert parts.pairs == whole.pairs


def test_at_most_a_tenth_of_the_rows_is_shown() -> None:
    rng = np.random.default_rng(0)

    found = find_label_errors(rng.dirichlet([0.3] * 3, 800), rng.integers(0, 3, 800))

    assert found.flagged.sum() > 80
    assert len(found.shown()) == 80


def test_each_group_keeps_its_thresholds_and_all_rows_are_ranked_together() -> None:
    sure = probabilities([*[[0.98, 0.02]] * 9, *[[0.02, 0.98]] * 9, [0.01, 0.99]])
    unsure = probabilities([*[[0.6, 0.4]] * 9, *[[0.4, 0.6]] * 9, [0.35, 0.65]])
    given_ = labels([*[0] * 9, *[1] * 9, 0])
    groups = [find_label_errors(sure, given_), find_label_errors(unsure, given_)]

    whole = together(groups)
    one = find_label_errors(np.concatenate([sure, unsure]), np.concatenate([given_, given_]))

    assert whole.flagged.nonzero()[0].tolist() == [18, 37]
    assert one.flagged.nonzero()[0].tolist() == [18]
    np.testing.assert_array_equal(whole.scores, np.concatenate([one.scores for one in groups]))
    assert whole.order[0] == 18
    assert whole.pairs == (ConfusedPair(0, 1, 2),)
    assert whole.shown().tolist() == whole.order[:4].tolist()
    assert together([find_label_errors(np.zeros((0, 3)), labels([]))]).shown().size == 0


def test_probabilities_of_zero_have_finite_scores() -> None:
    found = find_label_errors(np.eye(3)[[0, 1, 2, 2]], labels([0, 1, 2, 0]))

    assert np.isfinite(found.scores).all()
    assert found.order[0] == 3


def test_no_rows_have_no_errors() -> None:
    found = find_label_errors(np.zeros((0, 3)), labels([]))

    assert found.shown().size == 0
    assert found.pairs == ()


def test_trials_are_averaged_row_by_row() -> None:
    mean = MeanProbabilities(2)
    mean.add(["a", "b"], probabilities([[0.2, 0.8], [1.0, 0.0]]))
    mean.add(["b", "b"], probabilities([[0.0, 1.0], [0.0, 1.0]]))

    found = mean.means()

    np.testing.assert_allclose(found["a"], [0.2, 0.8])
    np.testing.assert_allclose(found["b"], [0.5, 0.5])
