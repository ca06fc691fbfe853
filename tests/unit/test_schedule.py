from __future__ import annotations

import numpy as np
import pytest

from automl.training.schedule import Pace, learning_rate


def test_the_learning_rate_rises_and_falls_once() -> None:
    rates = [learning_rate(step / 100, 0.5) for step in range(100)]
    peak = int(np.argmax(rates))

    assert max(rates) == pytest.approx(0.5)
    assert peak == 20
    assert np.all(np.diff(rates[: peak + 1]) > 0)
    assert np.all(np.diff(rates[peak:]) < 0)
    assert rates[-1] < 0.001
    assert learning_rate(0, 0.5) > 0


def test_without_a_limit_progress_is_the_share_of_the_steps() -> None:
    pace = Pace(8, None)

    assert [pace.progress(done, 1e9) for done in range(3)] == [0, 1 / 8, 2 / 8]
    assert not pace.is_spent(7, 1e9)
    assert pace.is_spent(8, 0.0)


@pytest.mark.parametrize("step_s", [0.1, 1.0, 4.0])
def test_progress_reaches_its_end_with_the_time_at_any_speed(step_s: float) -> None:
    pace, done = Pace(10**6, 100.0), 0

    seen = []
    while not pace.is_spent(done, done * step_s):
        seen.append(pace.progress(done, done * step_s))
        done += 1

    assert done == pytest.approx(100 / step_s, abs=1)
    assert seen[-1] == pytest.approx(1 - step_s / 100, abs=0.05)
    assert np.all(np.diff(seen) >= 0)


def test_slow_first_steps_do_not_shorten_the_training() -> None:
    pace, elapsed_s = Pace(10**6, 100.0), 0.0

    seen = []
    for done in range(80):
        seen.append(pace.progress(done, elapsed_s))
        elapsed_s += 5.0 if done < 3 else 1.0

    assert seen[40] == pytest.approx(40 / 88, abs=0.02)


def test_steps_end_a_training_that_has_time_left() -> None:
    pace = Pace(10, 1000.0)

    seen = [pace.progress(done, float(done)) for done in range(10)]

    assert seen == pytest.approx([done / 10 for done in range(10)])
