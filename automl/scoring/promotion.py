"""May a challenger take the champion's place?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from automl.errors import DataError

SIGNIFICANCE = 0.05

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to promote, and why.

    Attributes:
        promote: the challenger becomes the champion.
        reason: one sentence for people.
        p_value: of the one-sided test; None without a champion.
        gain: accuracy gained on the gate rows, 0 to 1; None without a champion.
    """

    promote: bool
    reason: str
    p_value: float | None
    gain: float | None


def decide_promotion(challenger: Array, champion: Array | None, min_improvement: float) -> Decision:
    """Compare two versions on the same gate rows with McNemar's exact test, one-sided.

    Args:
        challenger: which rows it classifies correctly, bool `[n]`.
        champion: the same of the champion; None if there is none, then the challenger wins.
        min_improvement: least gain in accuracy, 0 to 1.

    Raises:
        DataError: there are no rows, or not the same number for both.
    """
    if champion is None:
        return Decision(promote=True, reason="It is the first version.", p_value=None, gain=None)
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
    if p_value >= SIGNIFICANCE:
        reason = f"Not significantly better: {facts}, needs p < {SIGNIFICANCE}."
    elif gain < min_improvement - 1e-12:  # rounding: 3/100 and 0.03 are the same gain
        reason = f"Gain too small: {facts}, needs {100 * min_improvement:g} points."
    else:
        return Decision(True, f"Better: {facts}.", p_value, gain)  # noqa: FBT003
    return Decision(False, reason, p_value, gain)  # noqa: FBT003


def mcnemar(won: int, lost: int) -> float:
    """Return P(X >= won) for X binomial with won + lost draws of 1/2; 1 without a difference."""
    from scipy.stats import binomtest

    if won + lost == 0:
        return 1.0
    return float(binomtest(won, won + lost, 0.5, alternative="greater").pvalue)
