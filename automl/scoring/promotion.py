"""Decisions whether a challenger takes the champion's place, by paired one-sided tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from automl.domain.objective import Objective
from automl.errors import DataError
from automl.scoring.regression import metric_draws

SIGNIFICANCE = 0.05
_ROUNDING = 1e-12  # 3/100 and 0.03 are the same gain


@dataclass(frozen=True, slots=True)
class Decision:
    """Decision about a promotion, and its reason.

    Attributes:
        promote: the challenger becomes the champion.
        reason: one sentence for people.
        p_value: of the one-sided test; None without a champion.
        gain: what the metric gained on the gate rows; None without a champion.
    """

    promote: bool
    reason: str
    p_value: float | None
    gain: float | None


FIRST_VERSION = Decision(promote=True, reason="It is the first version.", p_value=None, gain=None)


def decide_by_hits(
    challenger: np.ndarray, champion: np.ndarray, min_improvement: float
) -> Decision:
    """Compare two classifiers on the same gate rows with McNemar's exact test, one-sided.

    Args:
        challenger: which rows it classifies correctly, bool `[n]`.
        champion: the same of the champion.
        min_improvement: least gain in accuracy, 0 to 1.

    Raises:
        DataError: there are no rows, or not the same number for both.
    """
    n = len(challenger)
    if not n or challenger.shape != champion.shape:
        raise DataError(
            f"Gate rows: {challenger.shape} of challenger, {champion.shape} of champion."
        )
    won = int((challenger & ~champion).sum())
    lost = int((champion & ~challenger).sum())
    p_value, gain = mcnemar(won, lost), (won - lost) / n
    facts = (
        f"{won} of {n} gate rows won and {lost} lost, "
        f"gain {100 * gain:+.2f} points, p = {p_value:.3g}"
    )
    return _decide(p_value, gain, min_improvement, facts, f"{100 * min_improvement:g} points")


def decide_by_values(
    challenger: np.ndarray,
    champion: np.ndarray,
    truth: np.ndarray,
    objective: Objective,
    min_improvement: float,
) -> Decision:
    """Compare two models of values on the same gate rows by a paired bootstrap, one-sided.

    The p-value is the share of draws of the rows in which the challenger gains nothing.

    Args:
        challenger: its predictions, `[n]` or `[n, 1]`.
        champion: the champion's.
        truth: the true values `[n]`.
        objective: names the metric, which has its own direction.
        min_improvement: least gain, in the metric's unit.

    Raises:
        DataError: there are no rows, the shapes do not fit, or values have no such metric.
    """
    if len(challenger) != len(champion):
        raise DataError(f"Gate rows: {len(challenger)} of challenger, {len(champion)} of champion.")
    (new, old), drawn = metric_draws(challenger, champion, truth, objective)
    sign = objective.loss(1.0)
    gain = sign * float(old - new)
    gains = sign * (drawn[:, 1] - drawn[:, 0])
    p_value = (1 + int((gains <= 0).sum())) / (1 + len(gains))  # a draw of all rows counts too
    facts = (
        f"{objective} {old:.4g} became {new:.4g} on {len(truth)} gate rows, "
        f"gain {gain:+.3g}, p = {p_value:.3g}"
    )
    return _decide(p_value, gain, min_improvement, facts, f"{min_improvement:g}")


def _decide(
    p_value: float, gain: float, min_improvement: float, facts: str, least: str
) -> Decision:
    if p_value >= SIGNIFICANCE:
        reason = f"Not significantly better: {facts}, needs p < {SIGNIFICANCE}."
    elif gain < min_improvement - _ROUNDING:
        reason = f"Gain too small: {facts}, needs {least}."
    else:
        return Decision(True, f"Better: {facts}.", p_value, gain)  # noqa: FBT003
    return Decision(False, reason, p_value, gain)  # noqa: FBT003


def mcnemar(won: int, lost: int) -> float:
    """Return P(X >= won) for X binomial with won + lost draws of 1/2; 1 without a difference."""
    from scipy.stats import binomtest

    if won + lost == 0:
        return 1.0
    return float(binomtest(won, won + lost, 0.5, alternative="greater").pvalue)
