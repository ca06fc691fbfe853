"""The data gate: what a snapshot differs in from the one before, and what of it is suspicious.

Of two kinds of rules the first needs no test, since chance does not do such things: a class is gone
or new, rows are fewer than 70 % or more than three times of before, or the rows with a content of
their own are less than 0.55 of their share before. A source that was listed twice halves that
share; a bootstrap sample (rows drawn with replacement) leaves 0.63 of it, and 0.61 with a tenth
more rows.

The second kind compares distributions: what is suspicious is significant, and large as well, so
that neither few rows nor many stop a run for trifles.

- Shares of the classes: Pearson's chi-square test of homogeneity, with classes of fewer than five
  expected rows pooled (Cochran, Biometrics 10, 1954); total variation of 0.05 or more, which is
  that a twentieth of the rows has another label.
- Share of each class: exact conditional test of two Poisson rates (Przyborowski and Wilenski,
  Biometrika 31, 1940); it is halved or doubled.
- Each statistic's distribution: two-sample Kolmogorov-Smirnov test on its bins, which binning makes
  conservative (Noether, Metrika 7, 1963); a distance of 0.05 or more.
- Each statistic's mean, for what happens within a bin: Welch's test (Biometrika 34, 1947); a shift
  of 0.2 standard deviations or more, Cohen's small effect ("Statistical Power Analysis", 1988).
- Share of missing values of each statistic: as for a class; it has risen by 0.05 or more.
- Share of quarantined rows: as for a class; it has risen by 0.02 or more.

Where nothing has changed, one comparison in a thousand at most finds a difference: all its tests
together keep `LEVEL` (Holm, Scandinavian Journal of Statistics 6, 1979), and so do the classes and
the two tests of a statistic among themselves (Bonferroni). The tests take rows as independent. They
are conservative for snapshots that share rows, as those of a growing source do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, bdtrc, chdtrc, kolmogorov, stdtr

from automl.data.profile import Distribution, Profile
from automl.domain.data_change import ChangeKind, DataChange

LEVEL = 0.001
LEAST_GROWTH, MOST_GROWTH = 0.7, 3.0  # of the rows
LEAST_DISTINCT = 0.55  # of the share of rows with a content of their own
CLASS_VARIATION = 0.05
CLASS_FACTOR = 2.0
DISTANCE = 0.05
MEAN_SHIFT = 0.2  # standard deviations
MISSING_RISE = 0.05
QUARANTINED_RISE = 0.02
_LEAST_EXPECTED = 5.0  # rows, for the chi-square distribution
_ROUNDING = 1e-9  # by which equal means may differ, relatively
_MOST_NAMES = 10  # of classes in a message


@dataclass(frozen=True, slots=True)
class _Test:
    """One test of a comparison.

    Attributes:
        p_value: of the difference, 1 where it is too small to matter.
        change: what it is if it is no chance.
    """

    p_value: float
    change: DataChange


def compare(before: Profile, after: Profile) -> list[DataChange]:
    """Return what differs between two snapshots, the suspicious first; nothing for equal profiles.

    Args:
        before: profile of the snapshot that the last run was opened on.
        after: profile of the new one.
    """
    tests = [*_share_tests(before, after), *_quarantine_test(before, after)]
    found = [*_classes(before, after), *_rows(before, after), *_duplicates(before, after)]
    for name in sorted(before.statistics.keys() | after.statistics.keys()):
        old, new = before.statistics.get(name), after.statistics.get(name)
        if old is None or new is None or old.bins != new.bins:
            message = f"{name} was measured otherwise, or not at all, before or now"
            found.append(DataChange(kind=ChangeKind.NOT_COMPARED, name=name, message=message))
        else:
            tests += [*_statistic_test(name, old, new), *_missing_test(name, old, new)]
    found += _significant(tests)
    return sorted(found, key=lambda change: not change.is_suspicious)


def _significant(tests: Sequence[_Test]) -> Iterator[DataChange]:
    """Yield the changes that are no chance, by Holm's procedure."""
    for rank, test in enumerate(sorted(tests, key=lambda test: test.p_value)):
        if test.p_value > LEVEL / (len(tests) - rank):
            return
        yield test.change


def _classes(before: Profile, after: Profile) -> Iterator[DataChange]:
    """Yield which classes are gone or new, and how many rows the others have."""
    old, new = before.rows_per_label, after.rows_per_label
    for kind, one, other, how in (
        (ChangeKind.VANISHED_CLASSES, old, new, "gone"),
        (ChangeKind.NEW_CLASSES, new, old, "new"),
    ):
        names = [f"{name!r} ({rows:,} rows)" for name, rows in one.items() if name not in other]
        if names:
            counted = "1 class is" if len(names) == 1 else f"{len(names):,} classes are"
            yield DataChange(
                kind=kind,
                message=f"{counted} {how}, of {len(one):,}: {_listed(names)}",
                before=len(old),
                after=len(new),
                is_suspicious=True,
            )
    both = sorted(old.keys() & new.keys(), key=lambda name: -abs(new[name] - old[name]))
    if moved := [f"{n!r} {old[n]:,} → {new[n]:,}" for n in both if new[n] != old[n]]:
        message = f"rows per class, before → now: {_listed(moved)}"
        yield DataChange(kind=ChangeKind.CLASS_ROWS, message=message)


def _rows(before: Profile, after: Profile) -> Iterator[DataChange]:
    if before.rows == after.rows:
        return
    growth = after.rows / before.rows if before.rows else math.inf
    yield DataChange(
        kind=ChangeKind.ROWS,
        message=f"{after.rows:,} rows, before {before.rows:,} ({growth:.0%} of them)",
        before=before.rows,
        after=after.rows,
        is_suspicious=not LEAST_GROWTH <= growth <= MOST_GROWTH,
    )


def _duplicates(before: Profile, after: Profile) -> Iterator[DataChange]:
    """Yield how many rows are copies of others, if that differs.

    What counts is the share of the rows that are none: that of a source which has many copies
    anyway, such as a bootstrap sample, falls no further by more of the same.
    """
    if before.duplicates == after.duplicates or not (before.rows and after.rows):
        return
    old, new = (1 - profile.duplicates / profile.rows for profile in (before, after))
    yield DataChange(
        kind=ChangeKind.DUPLICATES,
        message=f"{after.duplicates:,} of {after.rows:,} rows ({1 - new:.1%}) are exact copies of "
        f"others, before {before.duplicates:,} of {before.rows:,} ({1 - old:.1%})",
        before=before.duplicates,
        after=after.duplicates,
        is_suspicious=new < LEAST_DISTINCT * old,
    )


def _share_tests(before: Profile, after: Profile) -> Iterator[_Test]:
    """Yield tests of the classes' shares among the rows of those classes that both have."""
    names = sorted(before.rows_per_label.keys() & after.rows_per_label.keys())
    if len(names) < 2:
        return
    table = np.array(
        [[profile.rows_per_label[name] for name in names] for profile in (before, after)]
    )
    old, new = table / table.sum(axis=1, keepdims=True)
    variation = float(np.abs(new - old).sum() / 2)
    order = np.argsort(-np.abs(new - old), kind="stable")
    shown = _listed([_shares(names[k], old[k], new[k]) for k in order if new[k] != old[k]])
    message = f"{variation:.1%} of the rows have moved between classes; shares, before → now: "
    yield _Test(
        _homogeneity(table) if variation >= CLASS_VARIATION else 1.0,
        DataChange(
            kind=ChangeKind.CLASS_SHARES,
            message=message + shown,
            after=variation,
            is_suspicious=True,
        ),
    )
    ratios = new / old
    p_values = len(names) * _rate_test(table[0], table[1], *table.sum(axis=1))
    far = (ratios >= CLASS_FACTOR) | (ratios <= 1 / CLASS_FACTOR)
    certain = [k for k in order if far[k] and p_values[k] <= LEVEL]
    shown = _listed([_shares(names[k], old[k], new[k]) for k in certain])
    message = f"shares that are at least halved or doubled, before → now: {shown}"
    yield _Test(
        min((float(p_values[k]) for k in certain), default=1.0),
        DataChange(kind=ChangeKind.CLASS_SHARES, message=message, is_suspicious=True),
    )


def _quarantine_test(before: Profile, after: Profile) -> Iterator[_Test]:
    if not (before.rows_listed and after.rows_listed):
        return
    counts = before.quarantined, after.quarantined
    totals = before.rows_listed, after.rows_listed
    old, new = (count / total for count, total in zip(counts, totals, strict=True))
    yield _Test(
        float(_rate_test(*counts, *totals)) if new - old >= QUARANTINED_RISE else 1.0,
        DataChange(
            kind=ChangeKind.QUARANTINED,
            message=f"{counts[1]:,} of {totals[1]:,} listed rows ({new:.1%}) cannot be used, "
            f"before {counts[0]:,} of {totals[0]:,} ({old:.1%})",
            before=old,
            after=new,
            is_suspicious=True,
        ),
    )


def _statistic_test(name: str, before: Distribution, after: Distribution) -> Iterator[_Test]:
    if min(before.known, after.known) < 2:
        return
    distance = _distance(before, after)
    shift, p_shift = _mean_shift(before, after)
    sizes = before.known * after.known / (before.known + after.known)
    large = [float(kolmogorov(distance * math.sqrt(sizes)))] if distance >= DISTANCE else []
    large += [p_shift] if shift >= MEAN_SHIFT else []
    yield _Test(
        min(1.0, 2 * min(large, default=1.0)),
        DataChange(
            kind=ChangeKind.STATISTIC,
            name=name,
            message=f"{name} is distributed otherwise: mean {after.mean:.4g}, before "
            f"{before.mean:.4g}; standard deviation {after.std:.4g}, before {before.std:.4g}; "
            f"{distance:.0%} of the rows have moved",
            before=before.mean,
            after=after.mean,
            is_suspicious=True,
        ),
    )


def _missing_test(name: str, before: Distribution, after: Distribution) -> Iterator[_Test]:
    totals = before.known + before.missing, after.known + after.missing
    if not all(totals):
        return
    old, new = before.missing / totals[0], after.missing / totals[1]
    p_value = float(_rate_test(before.missing, after.missing, *totals))
    yield _Test(
        p_value if new - old >= MISSING_RISE else 1.0,
        DataChange(
            kind=ChangeKind.MISSING_VALUES,
            name=name,
            message=f"{new:.1%} of the rows have no {name}, before {old:.1%}",
            before=old,
            after=new,
            is_suspicious=True,
        ),
    )


def _homogeneity(table: NDArray[np.int64]) -> float:
    """Return the p-value of Pearson's test that two rows of counts have the same shares.

    Columns of which one row expects fewer than five are pooled; without two columns there is no
    evidence, and the p-value is 1.
    """
    totals = table.sum(axis=1, keepdims=True)
    is_small = (totals * table.sum(axis=0) / totals.sum()).min(axis=0) < _LEAST_EXPECTED
    pooled = np.hstack([table[:, ~is_small], table[:, is_small].sum(axis=1, keepdims=True)])
    pooled = pooled[:, pooled.sum(axis=0) > 0]
    if pooled.shape[1] < 2:
        return 1.0
    expected = totals * pooled.sum(axis=0) / totals.sum()
    statistic = ((pooled - expected) ** 2 / expected).sum()
    return float(chdtrc(pooled.shape[1] - 1, statistic))


def _rate_test(
    old: ArrayLike, new: ArrayLike, old_total: float, new_total: float
) -> NDArray[np.float64]:
    """Return two-sided p-values that integer counts come from equal rates, given their sums."""
    counts = np.asarray(new, np.int64)
    both, share = counts + np.asarray(old, np.int64), new_total / (old_total + new_total)
    fewer = bdtr(counts, both, share)
    more = np.where(counts == 0, 1.0, bdtrc(counts - 1, both, share))
    return np.asarray(np.minimum(1.0, 2 * np.minimum(fewer, more)), np.float64)


def _distance(before: Distribution, after: Distribution) -> float:
    """Return the largest difference between two distribution functions, 0 to 1."""
    places = sorted(before.counts.keys() | after.counts.keys())
    old, new = (
        np.cumsum([each.counts.get(place, 0) for place in places]) / each.known
        for each in (before, after)
    )
    return float(np.abs(new - old).max())


def _mean_shift(before: Distribution, after: Distribution) -> tuple[float, float]:
    """Return by how many standard deviations the mean has moved, and Welch's p-value."""
    moved = abs(after.mean - before.mean)
    if moved <= _ROUNDING * max(abs(before.mean), abs(after.mean)):
        return 0.0, 1.0
    variances = before.std**2, after.std**2
    if not any(variances):
        return math.inf, 0.0
    errors = [v / (each.known - 1) for v, each in zip(variances, (before, after), strict=True)]
    share = errors[0] / sum(errors)
    freedom = 1 / (share**2 / (before.known - 1) + (1 - share) ** 2 / (after.known - 1))
    p_value = 2 * float(stdtr(freedom, -moved / math.sqrt(sum(errors))))
    return moved / math.sqrt(sum(variances) / 2), p_value


def _shares(name: str, old: float, new: float) -> str:
    return f"{name!r} {old:.1%} → {new:.1%}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f", and {more:,} more" if more > 0 else "")
