"""Steps that are timed when a run is opened: how many there are."""

from __future__ import annotations

import pytest

from automl.training.precision import least_seconds


@pytest.mark.parametrize(
    ("each_s", "steps", "least_s"),
    [
        ([0.3, 0.2, 0.4, 0.25, 0.3], 5, 0.2),
        ([1.0, 0.9, 1.2, 0.1, 0.1], 3, 0.9),
        ([40.0, 0.1, 0.1, 0.1, 0.1], 1, 40.0),
    ],
)
def test_slow_steps_are_timed_less_often(each_s: list[float], steps: int, least_s: float) -> None:
    left = list(each_s)

    assert least_seconds(lambda: left.pop(0)) == least_s
    assert len(each_s) - len(left) == steps
