"""The one-cycle learning rate, and how far along its cycle a training is."""

from __future__ import annotations

import math
from dataclasses import dataclass

_WARM_UP = 0.2
_START_SHARE = 0.1
_END_SHARE = 0.001
_UNMEASURED_STEPS = 3  # the first steps of a process are slower than the others


def learning_rate(progress: float, peak: float) -> float:
    """Return the learning rate of one step: a linear warm-up, then a cosine down to nearly zero.

    After arXiv:1708.07120 with the cosine of arXiv:1608.03983 on the way down.

    Args:
        progress: the share of the training that is done, 0 to 1.
        peak: the largest learning rate.
    """
    if progress < _WARM_UP:
        return peak * (_START_SHARE + (1 - _START_SHARE) * progress / _WARM_UP)
    down = (min(1.0, progress) - _WARM_UP) / (1 - _WARM_UP)
    cosine = (1 + math.cos(math.pi * down)) / 2
    return peak * (_END_SHARE + (1 - _END_SHARE) * cosine)


@dataclass(slots=True)
class Pace:
    """Progress of a training: by steps, and by time where that is spent first.

    With a limit in seconds, the steps that will have been made by then are estimated anew at every
    step, so that the cycle ends with the time on fast and slow machines alike.

    Attributes:
        steps: how many steps the training has if time allows.
        seconds: wall clock it may take over all attempts, or None for any.
    """

    steps: int
    seconds: float | None
    _first: tuple[int, float] | None = None  # steps and seconds when measuring began
    _calls: int = 0

    def progress(self, done: int, elapsed_s: float) -> float:
        """Return the share of the training that is done; call it once before every step.

        Args:
            done: steps made, over all attempts.
            elapsed_s: seconds spent, over all attempts.
        """
        self._calls += 1
        if self._calls <= _UNMEASURED_STEPS + 1:
            self._first = done, elapsed_s
        return self.share_done(done, elapsed_s)

    def share_done(self, done: int, elapsed_s: float) -> float:
        """Return the share of the training that is done, as `progress` does; call it at any time.

        Args:
            done: steps made, over all attempts.
            elapsed_s: seconds spent, over all attempts.
        """
        by_steps = min(1.0, done / self.steps)
        if self.seconds is None or done == 0:
            return by_steps
        speed = self._steps_per_second(done, elapsed_s)
        if speed is None:
            return min(1.0, max(by_steps, elapsed_s / self.seconds))
        left_s = max(0.0, self.seconds - elapsed_s)
        return max(by_steps, done / (done + left_s * speed))

    def seconds_left(self, done: int, elapsed_s: float) -> float:
        """Return about how much longer the training takes; 0 as long as its speed is not known.

        Args:
            done: steps made, over all attempts.
            elapsed_s: seconds spent, over all attempts.
        """
        speed = self._steps_per_second(done, elapsed_s)
        if speed is None:
            return 0.0
        by_steps_s = (self.steps - done) / speed
        return by_steps_s if self.seconds is None else min(by_steps_s, self.seconds - elapsed_s)

    def _steps_per_second(self, done: int, elapsed_s: float) -> float | None:
        """Return the speed since measuring began; None if nothing was measured."""
        if self._first is None:
            return None
        made, took_s = done - self._first[0], elapsed_s - self._first[1]
        return made / took_s if made and took_s > 0 else None

    def is_spent(self, done: int, elapsed_s: float) -> bool:
        """Return whether all steps are made or the time is over."""
        return done >= self.steps or (self.seconds is not None and elapsed_s >= self.seconds)
