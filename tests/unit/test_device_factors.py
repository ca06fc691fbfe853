"""Device factors: fitted to known latencies, and measured on this machine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.morphism.architecture import Architecture
from automl.morphism.costs import DeviceFactors
from automl.training import device_factors
from automl.training.device_factors import calibrate, calibration_architectures, fit_factors
from tests.morphs import quick

SIZES = (4, 8, 32, 100)


@quick(40)
@given(
    size=st.sampled_from(SIZES),
    flop=st.integers(5, 200),
    byte=st.integers(0, 1000),
    layer=st.integers(0, 50_000),
)
def test_the_factors_behind_exact_latencies_are_found(
    size: int, flop: int, byte: int, layer: int
) -> None:
    architectures, factors = calibration_architectures(size, 10), DeviceFactors(flop, byte, layer)

    found = fit_factors(architectures, [factors.latency_ms(one) for one in architectures])

    assert found == factors


@quick(20)
@given(size=st.sampled_from(SIZES), seed=st.integers(0, 2**32 - 1))
def test_whatever_is_measured_no_factor_is_negative(size: int, seed: int) -> None:
    architectures = calibration_architectures(size, 10)
    latencies_ms = np.random.default_rng(seed).lognormal(0, 1, len(architectures))

    found = fit_factors(architectures, latencies_ms.tolist())

    assert min(found.ps_per_flop, found.ps_per_byte, found.ns_per_layer) >= 0
    assert max(found.ps_per_flop, found.ps_per_byte, found.ns_per_layer) > 0


def test_this_machine_is_measured() -> None:
    factors = calibrate(16, 10)

    assert min(factors.ps_per_flop, factors.ps_per_byte, factors.ns_per_layer) >= 0
    assert all(factors.latency_ms(one) > 0 for one in calibration_architectures(16, 10))


def test_large_images_are_measured_at_a_size_that_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Architecture] = []
    truth = DeviceFactors(30, 200, 9000)

    def latency_ms(architecture: Architecture, *_: object) -> float:
        measured.append(architecture)
        return truth.latency_ms(architecture)

    monkeypatch.setattr(device_factors, "measure_latency_ms", latency_ms)

    assert calibrate(1024, 10) == truth
    assert {architecture.input_size for architecture in measured} == {device_factors.LARGEST_SIZE}
