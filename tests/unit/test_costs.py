"""What architectures are predicted to cost in time and work."""

from __future__ import annotations

import pytest

from automl.morphism.costs import WORK_PER_BYTE, DeviceFactors, training_work
from automl.morphism.seeds import seed_architectures


def test_the_work_is_three_forward_passes_and_the_bytes_they_move() -> None:
    architecture = seed_architectures(8, 10)[0]

    moved = WORK_PER_BYTE * architecture.activation_bytes
    assert training_work(architecture) == 3 * (architecture.macs + moved)


def test_a_latency_adds_up_multiply_adds_bytes_and_layers() -> None:
    architecture = seed_architectures(8, 10)[0]
    macs, size_bytes = architecture.macs, architecture.activation_bytes

    assert DeviceFactors(20, 0, 0).latency_ms(architecture) == 20e-9 * macs
    assert DeviceFactors(0, 300, 0).latency_ms(architecture) == pytest.approx(300e-9 * size_bytes)
    nodes = len(architecture.nodes)
    assert DeviceFactors(0, 0, 15_000).latency_ms(architecture) == pytest.approx(15e-3 * nodes)
