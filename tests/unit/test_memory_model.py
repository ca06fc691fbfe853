"""Correcting predicted memory by measured peaks, and the bounds that follow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.domain.trial import Device, Measurement, NetworkMeasurement, Outcome, Trial, TrialState
from automl.search.memory_model import (
    MemoryBound,
    MemoryCorrection,
    correction_of,
    fit_correction,
    memory_bound,
    rounded_down,
)

CPU, GPU = "cpu", "NVIDIA H100 80GB HBM3"
MB = 10**6


def trial(
    number: int,
    predicted: int | None,
    peak: int | None = None,
    outcome: Outcome = Outcome.COMPLETED,
    device: str = CPU,
    micro_batch: int = 64,
) -> Trial:
    measured = Measurement(
        device=device, predicted_bytes=predicted, peak_bytes=peak,
        network=NetworkMeasurement(batch_size=64, micro_batch=micro_batch),
    )  # fmt: skip
    return Trial(
        number=number, run="run", generation=0, snapshot="s", state=TrialState.FINISHED,
        outcome=outcome, measurement=measured,
    )  # fmt: skip


def points(
    count: int, offset: float, slope: float, seed: int, noise: float = 0.05
) -> list[tuple[int, int]]:
    """Return predictions over two magnitudes, and peaks that are off by some noise."""
    rng = np.random.default_rng(seed)
    predicted = np.exp(rng.uniform(np.log(5 * MB), np.log(500 * MB), count))
    peaks = (offset + slope * predicted) * np.exp(noise * rng.standard_normal(count))
    return [(int(p), int(m)) for p, m in zip(predicted, peaks, strict=True)]


def test_without_trials_predictions_count_with_some_margin() -> None:
    assert fit_correction([]) == MemoryCorrection(0.0, 1.0, 1.2)
    assert fit_correction([]).most_predicted(120) == 100


@pytest.mark.parametrize("offset", [0, 10 * MB, 200 * MB])
@pytest.mark.parametrize("slope", [0.6, 1.0, 1.7])
def test_after_ten_trials_nine_of_ten_peaks_are_within_15_percent(
    offset: int, slope: float
) -> None:
    shares = []
    for seed in range(20):
        correction = fit_correction(points(10, offset, slope, seed))
        later = points(100, offset, slope, 1000 + seed)
        shares.append(np.mean([abs(correction.expected(p) / m - 1) <= 0.15 for p, m in later]))

    assert np.mean(shares) >= 0.95
    assert sum(share < 0.9 for share in shares) <= 2  # ten that are all large or all small


def test_nine_of_ten_peaks_are_below_the_upper_bound() -> None:
    shares = []
    for seed in range(40):
        correction = fit_correction(points(10, 20 * MB, 1.2, seed))
        later = points(100, 20 * MB, 1.2, 1000 + seed)
        shares.append(np.mean([m <= correction.upper(p) for p, m in later]))

    assert np.mean(shares) >= 0.85


def test_one_peak_far_off_changes_little() -> None:
    usual = points(10, 10 * MB, 1.1, seed=1)
    odd = [(usual[0][0], 5 * usual[0][1]), *usual[1:]]  # as the first training of a process

    for predicted in (10 * MB, 300 * MB):
        expected = fit_correction(usual).expected(predicted)
        assert fit_correction(odd).expected(predicted) == pytest.approx(expected, rel=0.1)


def test_trainings_of_one_size_do_not_say_that_larger_ones_take_no_more() -> None:
    rng = np.random.default_rng(0)
    same = [(20 * MB + int(rng.integers(MB)), 60 * MB - int(rng.integers(MB))) for _ in range(20)]

    correction = fit_correction(same)

    assert correction.expected(20 * MB) == pytest.approx(60 * MB, rel=0.05)
    assert correction.slope >= 0.25


@given(
    st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**12)), max_size=12),
    st.integers(0, 10**12),
)
def test_a_bound_keeps_its_promise_whatever_was_measured(
    measured: Sequence[tuple[int, int]], limit: int
) -> None:
    correction = fit_correction(measured)

    assert correction.offset_bytes >= 0
    assert correction.margin >= 1
    most = correction.most_predicted(limit)
    assert most == 0 or correction.upper(most) <= limit * (1 + 1e-9)
    assert correction.upper(most + 2) > limit


def test_only_whole_trainings_on_the_same_type_of_device_count() -> None:
    counted = [trial(n, p, m) for n, (p, m) in enumerate(points(8, 0, 1.5, seed=0))]
    others = [
        trial(8, 10 * MB, 90 * MB, device=GPU),
        trial(9, 10 * MB, 90 * MB, micro_batch=32),
        trial(10, 10 * MB, None),
        trial(11, None, 90 * MB),
    ]

    assert correction_of([*counted, *others], CPU) == correction_of(counted, CPU)
    assert correction_of(counted, GPU) == MemoryCorrection()
    assert correction_of(counted, CPU).slope == pytest.approx(1.5, rel=0.1)


def test_the_tighter_of_device_and_study_bounds_what_is_predicted() -> None:
    device = Device(type=CPU, memory_bytes=120 * MB)

    assert memory_bound([], device).most_bytes == rounded_down(100 * MB)
    assert memory_bound([], device, 60 * MB).most_bytes == rounded_down(50 * MB)
    assert memory_bound([], Device(type=CPU), 60 * MB).most_bytes == rounded_down(50 * MB)
    assert memory_bound([], Device(type=CPU)) == MemoryBound(None, None)


def test_the_smallest_training_that_ran_out_of_memory_bounds_its_type_of_device() -> None:
    failed = [
        trial(0, 300 * MB, outcome=Outcome.OUT_OF_MEMORY),
        trial(1, 200 * MB, outcome=Outcome.OUT_OF_MEMORY),
        trial(2, 100 * MB, outcome=Outcome.OUT_OF_MEMORY, device=GPU),
        trial(3, 50 * MB, outcome=Outcome.FAILED),
        trial(4, None, outcome=Outcome.OUT_OF_MEMORY),
    ]

    assert memory_bound(failed, Device(type=CPU)).out_of_memory_bytes == 190 * MB
    assert memory_bound(failed, Device(type=GPU)).out_of_memory_bytes == 95 * MB
    assert memory_bound(failed, Device(type="another")).out_of_memory_bytes is None


@given(st.integers(0, 2**50))
def test_rounding_loses_little_and_never_exceeds(count: int) -> None:
    assert rounded_down(count) <= count
    assert rounded_down(count) >= count * (1 - 1 / 16)
    assert bin(rounded_down(count)).strip("0b").__len__() <= 5
