"""The one-cycle learning rate."""

from __future__ import annotations

import math

_WARM_UP = 0.2
_START_SHARE = 0.1
_END_SHARE = 0.001


def learning_rate(step: int, total: int, peak: float) -> float:
    """Return the learning rate of one step: a linear warm-up, then a cosine down to nearly zero.

    After arXiv:1708.07120 with the cosine of arXiv:1608.03983 on the way down.

    Args:
        step: steps made before, from 0 to total - 1.
        total: steps of the whole training.
        peak: the largest learning rate.
    """
    warm_up = _WARM_UP * total
    if step < warm_up:
        return peak * (_START_SHARE + (1 - _START_SHARE) * step / warm_up)
    progress = (step - warm_up) / max(1.0, total - 1 - warm_up)
    cosine = (1 + math.cos(math.pi * min(1.0, progress))) / 2
    return peak * (_END_SHARE + (1 - _END_SHARE) * cosine)
