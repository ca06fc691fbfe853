"""What simulated searches amount to: a table, paired tests and thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import wilcoxon

CANDIDATE = "bayesian"  # the searcher that has to beat all others
MEDIANS_AT = (25, 50, 100, 150)
MEAN_AT = 100
LAST = 150


@dataclass(frozen=True, slots=True)
class Row:
    """One simulated search.

    Attributes:
        searcher: its name.
        workers: trials that were evaluated at the same time.
        seed: of the study.
        regrets: per cent points below the best, after each finished trial.
        seconds_per_proposal: mean time.
        strategies: how many finished trials each strategy proposed.
    """

    searcher: str
    workers: int
    seed: int
    regrets: Sequence[float]
    seconds_per_proposal: float
    strategies: Mapping[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """All searches of one searcher with as many workers.

    Attributes:
        regrets: (searches, trials), in the order of `seeds`.
        seeds: of the searches.
        seconds_per_proposal: mean time.
    """

    regrets: npt.NDArray[np.float64]
    seeds: tuple[int, ...]
    seconds_per_proposal: float

    def median(self, trials: int) -> float:
        """Return the median regret after so many trials."""
        return float(np.median(self._after(trials)))

    def mean(self, trials: int) -> float:
        """Return the mean regret after so many trials."""
        return float(self._after(trials).mean())

    def optimum(self, trials: int) -> float:
        """Return the share of searches that have found the best cell after so many trials."""
        after = self._after(trials)
        return float(np.where(np.isnan(after), after, after == 0).mean())

    @property
    def areas(self) -> npt.NDArray[np.float64]:
        """The sums of the regrets over the trials, one per search, in per cent points."""
        areas: npt.NDArray[np.float64] = self.regrets.sum(axis=1)
        return areas

    def _after(self, trials: int) -> npt.NDArray[np.float64]:
        """Return the regrets; a search with fewer trials has none, so that nothing hides."""
        if trials > self.regrets.shape[1]:
            return np.full(1, np.nan)
        return self.regrets[:, trials - 1]


Groups = Mapping[tuple[str, int], Group]


def report(rows: Sequence[Row]) -> tuple[str, dict[str, Any]]:
    """Return the report as text, and as a document for machines."""
    groups = group(rows)
    summary = [summarise(name, workers, one) for (name, workers), one in groups.items()]
    tests = [test for workers in _workers(groups) for test in compare(groups, workers)]
    checks = check(groups)
    lines = [_heading(), *(_line(row) for row in summary)]
    if tests:
        lines += ["", f"{CANDIDATE} has the smaller area, Wilcoxon, one-sided, paired, Holm:"]
        lines += [
            f"  than {test['other']:10} {test['workers']} workers  p = {test['p']:.2g}"
            f"  (uncorrected {test['p_uncorrected']:.2g}, {test['seeds']} seeds)"
            for test in tests
        ]
    if checks:
        lines += ["", "thresholds:"]
        lines += [
            f"  {'pass' if one['passed'] else 'FAIL'}  {one['what']}: {one['value']:.3f}, "
            f"limit {one['limit']:.3f}"
            for one in checks
        ]
    return "\n".join(lines), {"summary": summary, "tests": tests, "thresholds": checks}


def group(rows: Sequence[Row]) -> Groups:
    """Return the searches by searcher and number of workers, in the order they first occur."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        found.setdefault((row.searcher, row.workers), []).append(row)
    return {
        key: Group(
            np.array([row.regrets for row in part]),
            tuple(row.seed for row in part),
            float(np.mean([row.seconds_per_proposal for row in part])),
        )
        for key, part in found.items()
    }


def summarise(name: str, workers: int, one: Group) -> dict[str, Any]:
    """Return a line of the table; NaN after more trials than there were."""
    return {
        "searcher": name,
        "workers": workers,
        "seeds": len(one.seeds),
        **{f"median_{trials}": one.median(trials) for trials in MEDIANS_AT},
        f"mean_{MEAN_AT}": one.mean(MEAN_AT),
        f"optimum_{LAST}": one.optimum(LAST),
        "area": float(one.areas.mean()),
        "seconds_per_proposal": one.seconds_per_proposal,
    }


def compare(groups: Groups, workers: int) -> list[dict[str, Any]]:
    """Return whether the candidate's area is smaller than the others', over the same seeds."""
    ours = groups.get((CANDIDATE, workers))
    if ours is None:
        return []
    others = {
        name: other
        for (name, count), other in groups.items()
        if count == workers and name != CANDIDATE
    }
    p_values = []
    for other in others.values():
        assert ours.seeds == other.seeds
        p_values.append(float(wilcoxon(ours.areas, other.areas, alternative="less").pvalue))
    return [
        {"other": name, "workers": workers, "seeds": len(ours.seeds), "p": p, "p_uncorrected": raw}
        for name, p, raw in zip(others, holm(p_values), p_values, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p values corrected for their number (Holm, 1979), in the given order."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(np.argsort(p_values)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def check(groups: Groups) -> list[dict[str, Any]]:
    """Return how the candidate stands to its thresholds, with one worker and with four."""
    one, four = groups.get((CANDIDATE, 1)), groups.get((CANDIDATE, 4))
    found: list[tuple[str, float, float]] = []
    if one:
        found += [
            (f"mean regret @{MEAN_AT}", one.mean(MEAN_AT), 0.12),
            (f"share without the optimum @{LAST}", 1 - one.optimum(LAST), 0.15),
            ("median regret @50", one.median(50), 0.21),
        ]
    if one and four:
        loss = four.mean(MEAN_AT) - one.mean(MEAN_AT)
        found.append((f"4 workers: mean regret @{MEAN_AT} above one worker's", loss, 0.10))
    if four:
        found.append(("4 workers: median regret @50", four.median(50), 0.25))
    return [
        {"what": what, "value": value, "limit": limit, "passed": value <= limit + 1e-9}
        for what, value, limit in found
    ]


def _workers(groups: Groups) -> list[int]:
    return sorted({workers for _, workers in groups})


def _heading() -> str:
    medians = "".join(f"{f'@{trials}':>7}" for trials in MEDIANS_AT)
    return (
        f"{'searcher':10} workers seeds{medians}  mean @{MEAN_AT}  optimum @{LAST}"
        "    area  ms/proposal    (regret: medians, mean)"
    )


def _line(row: Mapping[str, Any]) -> str:
    medians = "".join(f"{row[f'median_{trials}']:7.2f}" for trials in MEDIANS_AT)
    return (
        f"{row['searcher']:10} {row['workers']:7} {row['seeds']:5}{medians}"
        f"  {row[f'mean_{MEAN_AT}']:9.3f}  {row[f'optimum_{LAST}']:12.0%}"
        f"  {row['area']:6.1f}  {1000 * row['seconds_per_proposal']:11.1f}"
    )
