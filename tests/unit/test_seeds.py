"""The seed architectures fit the image."""

from __future__ import annotations

import numpy as np
import pytest

from automl.morphism.architecture import Op
from automl.morphism.seeds import seed_architectures
from tests.morphs import module_of, random_images, random_weights, train_steps


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 15, 16, 17, 28, 32, 64, 100, 224])
def test_seeds_fit_the_image(size: int) -> None:
    seeds = seed_architectures(size, 12)

    assert len({seed.genotype() for seed in seeds}) == 3
    assert [seed.macs for seed in seeds] == sorted(seed.macs for seed in seeds)
    for seed in seeds:
        assert seed.canonical()[0] == seed
        assert (seed.input_size, seed.input_channels, seed.classes) == (size, 3, 12)
        assert seed.macs < (8e6 if size <= 8 else 50e6)
        blocks = [shape[1] for shape in seed.shapes() if len(shape) == 3][:-1]
        assert min(blocks) >= min(size, 2)


@pytest.mark.parametrize(("size", "channels"), [(1, 1), (7, 3), (20, 4)])
def test_seeds_take_a_training_step(size: int, channels: int) -> None:
    rng = np.random.default_rng(0)
    for seed in seed_architectures(size, 5, channels):
        assert seed.input_channels == channels
        module = module_of(seed, random_weights(seed, rng))
        train_steps(module, random_images(seed, 4, rng), 1, rng)


def test_seeds_are_of_three_kinds_and_start_with_a_convolution() -> None:
    kinds = []
    for seed in seed_architectures(32, 10):
        ops = [node.op for node in seed.nodes]
        assert ops[1] is Op.CONV
        kinds.append((Op.ADD in ops, Op.FLATTEN in ops))

    assert kinds == [(False, False), (True, False), (False, True)]
