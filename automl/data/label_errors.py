"""Labels that are likely wrong, by predictions out of sample.

Confident learning (Northcutt, Jiang, Chuang 2021, arXiv:1911.00068): a class has the threshold
t_k, the mean probability of class k over the rows that are labelled so. A row whose most probable
class j with p_j >= t_j is not its label y is *flagged*. Rows are ranked by the odds against the
label: c^2 ln max p_j - ln p_y, over j != y, where c is the mean of p_y over all rows. Labels that
are wrong at random are found by p_y alone, those that are confused with one other class by its
ratio to the best of the others, unless the predictions are weak (small c), whose best other class
says little. `docs/benchmarks.md` shows that this is as good as p_y alone, or better.

Rows are read twice in blocks, and nothing but a few numbers of each is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 65_536
PRIOR_ROWS = 2.0  # rows of average confidence that each class is counted to have besides its own
SMALLEST = 1e-6  # probability that is told from none: predictions are stored in 32 bits
MOST_SHARE, FEW_ROWS = 0.1, 50  # of all rows that a person is shown; so many are not too many

Probabilities = NDArray[np.float64] | NDArray[np.float32]


class ConfusedPair(NamedTuple):
    """Two classes by the flagged rows that have the one and look like the other.

    Attributes:
        given: index of the class that the rows are labelled with.
        suggested: index of the class that they look like.
        rows: their number.
    """

    given: int
    suggested: int
    rows: int


@dataclass(frozen=True, slots=True)
class LabelErrors:
    """Judgement of the labels of n rows.

    Attributes:
        scores: odds against each row's label, in nats [n]; the larger, the more likely it is wrong.
        suggested: index of the class that each row looks like most, other than its own [n].
        flagged: whether the row is likely labelled wrong [n].
        order: all rows, the most likely errors first [n]; rows of equal score keep their order.
        pairs: of classes that are confused, those with the most flagged rows first.
    """

    scores: NDArray[np.float64]
    suggested: NDArray[np.int64]
    flagged: NDArray[np.bool_]
    order: NDArray[np.int64]
    pairs: tuple[ConfusedPair, ...]

    def shown(self) -> NDArray[np.int64]:
        """Return the rows that a person should look at, the most likely errors first.

        The number of flagged rows is an estimate of the number of errors; the rows themselves are
        the first ones of the ranking, which is better than the flags. They are twice as many, and
        at most a tenth of all rows or 50: weak predictions flag more than anybody would look at.
        """
        most = max(FEW_ROWS, int(MOST_SHARE * len(self.order)))
        return self.order[: min(2 * int(self.flagged.sum()), most)]


def find_label_errors(values: Probabilities, given: NDArray[np.int64]) -> LabelErrors:
    """Judge the labels of rows by what is predicted for them.

    Args:
        values: probabilities of the classes by networks that did not learn from the rows [n, K];
            may be a map of a file.
        given: index of the class that each row is labelled with [n].
    """
    assert values.ndim == 2
    assert given.shape == (len(values),)
    thresholds, average = class_thresholds(values, given)
    scores = np.empty(len(given))
    suggested = np.empty(len(given), np.int64)
    flagged = np.empty(len(given), np.bool_)
    for block in _blocks(len(given)):
        own, best, suggested[block], flagged[block] = _judge(
            values[block], given[block], thresholds
        )
        scores[block] = average**2 * np.log(best) - np.log(own)
    counted = Counter(zip(given[flagged].tolist(), suggested[flagged].tolist(), strict=True))
    return _ranked(scores, suggested, flagged, counted)


def together(found: Sequence[LabelErrors]) -> LabelErrors:
    """Return the judgement of several groups of rows as one of all of them, group after group.

    Each group keeps its own thresholds: what is sure for good predictions is not for weaker ones.
    """
    counted: Counter[tuple[int, int]] = Counter()
    for one in found:
        counted.update({(y, j): rows for y, j, rows in one.pairs})
    return _ranked(
        np.concatenate([one.scores for one in found]),
        np.concatenate([one.suggested for one in found]),
        np.concatenate([one.flagged for one in found]),
        counted,
    )


def _ranked(
    scores: NDArray[np.float64],
    suggested: NDArray[np.int64],
    flagged: NDArray[np.bool_],
    counted: Mapping[tuple[int, int], int],
) -> LabelErrors:
    pairs = [ConfusedPair(y, j, rows) for (y, j), rows in counted.items()]
    return LabelErrors(
        scores=scores,
        suggested=suggested,
        flagged=flagged,
        order=np.argsort(-scores, kind="stable"),
        pairs=tuple(sorted(pairs, key=lambda pair: (-pair.rows, pair.given, pair.suggested))),
    )


def class_thresholds(
    values: Probabilities, given: NDArray[np.int64]
) -> tuple[NDArray[np.float64], float]:
    """Return the mean probability of each class over the rows labelled so [K], and of all labels.

    A class of few rows has a mean that says little; so each class is counted as if it had two more
    rows of average confidence. A class without any row has that average.
    """
    classes = values.shape[1]
    rows, sums = np.zeros(classes), np.zeros(classes)
    for block in _blocks(len(given)):
        own = np.take_along_axis(values[block], given[block, None], axis=1)[:, 0]
        rows += np.bincount(given[block], minlength=classes)
        sums += np.bincount(given[block], own, minlength=classes)
    average = float(sums.sum() / max(rows.sum(), 1.0))
    return (sums + PRIOR_ROWS * average) / (rows + PRIOR_ROWS), average


def _blocks(n: int) -> list[slice]:
    return [slice(start, start + BLOCK_ROWS) for start in range(0, n, BLOCK_ROWS)]


def _judge(
    values: Probabilities, given: NDArray[np.int64], thresholds: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return probabilities of the labels and of the best others, what others, and the flags."""
    rows = np.arange(len(given))
    found = np.array(values, np.float64)
    own = found[rows, given]
    confident = np.where(found >= thresholds, found, -1.0)
    likely = confident.argmax(axis=1)
    flagged = (confident[rows, likely] >= 0) & (likely != given)
    found[rows, given] = -1.0
    others = found.argmax(axis=1)
    best = np.maximum(found[rows, others], SMALLEST)
    return np.maximum(own, SMALLEST), best, np.where(flagged, likely, others), flagged


class MeanProbabilities:
    """Mean of the predictions of several trials for the same rows, each known by its key.

    Args:
        classes: number of classes.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._trials: Counter[str] = Counter()

    def add(self, keys: Sequence[str], values: Probabilities) -> None:
        """Take in what a trial predicts for some rows; a key that is there twice counts once.

        Args:
            keys: of the rows.
            values: probabilities of the classes [n, K].
        """
        assert values.shape == (len(keys), self._classes)
        for key, row in dict(zip(keys, values, strict=True)).items():
            self._trials[key] += 1
            self._sums[key] = self._sums.get(key, 0.0) + row.astype(np.float64)

    def means(self) -> Mapping[str, NDArray[np.float64]]:
        """Return the mean probabilities of each row that a trial has predicted [K], by key."""
        return {key: total / self._trials[key] for key, total in self._sums.items()}
