from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable
from contextlib import closing

import numpy as np
import pytest
import torch
from torch import nn

from automl.training.compilation import CompiledPasses, Compiler
from automl.training.initialization import initial_weights
from automl.training.module import Network
from automl.training.replicas import Replicas
from tests.architectures import short_chain
from tests.morphs import module_of
from tests.trainings import problem

RNG = np.random.default_rng(0)
PLAIN_PASSES = 31  # until some are timed, and these


def images(count: int = 32, size: int = 8) -> torch.Tensor:
    return torch.from_numpy(RNG.integers(0, 256, (count, 3, size, size), dtype=np.uint8))


def network() -> Network:
    architecture = short_chain(0.0)
    return module_of(architecture, initial_weights(architecture, (1,)))


def traced(module: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """Compile as torch does it, but for the kernels, which need a C++ compiler."""
    return torch.compile(module, backend="aot_eager", dynamic=False)


class Recorded:
    """A compiler whose passes are those of the module, and a clock that shows what it is told."""

    def __init__(self, plain_s: float, compiled_s: float) -> None:
        self.compiled: list[torch.Size] = []
        self._plain_s, self._compiled_s = plain_s, compiled_s
        self.waits = 0

    def compiler(self) -> Compiler:
        def compiled(module: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
            def passes(values: torch.Tensor) -> torch.Tensor:
                self.compiled.append(values.shape)
                output: torch.Tensor = module(values)
                return output

            return passes

        moments = itertools.accumulate(
            itertools.chain([0.0], [self._plain_s] * 20, [9.0], [self._compiled_s] * 20)
        )

        def synchronize() -> None:
            self.waits += 1

        return Compiler(compiled, synchronize, lambda: next(moments))


def steps(passes: CompiledPasses, count: int, batch: torch.Tensor) -> None:
    for _ in range(count):
        passes(batch)


def test_a_short_training_is_neither_compiled_nor_waited_for() -> None:
    recorded = Recorded(1.0, 0.5)
    steps(CompiledPasses(network(), lambda: 599.0, recorded.compiler()), 200, images())

    assert recorded.compiled == []
    assert recorded.waits == 0


@pytest.mark.parametrize(("compiled_s", "kept"), [(0.9, 100), (1.1, 0)])
def test_the_quicker_passes_of_a_long_training_are_kept(compiled_s: float, kept: int) -> None:
    recorded = Recorded(1.0, compiled_s)
    passes = CompiledPasses(network(), lambda: 3600.0, recorded.compiler())
    steps(passes, PLAIN_PASSES, images())
    assert recorded.compiled == []
    tried, timed = 1, 21
    steps(passes, timed, images())
    assert len(recorded.compiled) == tried + timed
    steps(passes, 100, images())

    assert len(recorded.compiled) == tried + timed + kept
    assert recorded.waits == 2 * timed  # no step waits any more


def test_images_of_another_size_are_timed_on_their_own() -> None:
    recorded = Recorded(1.0, 0.5)
    passes = CompiledPasses(network(), lambda: 3600.0, recorded.compiler())
    small, large = images(size=8), images(size=16)
    steps(passes, 60, small)
    known = len(recorded.compiled)
    steps(passes, 10, large)
    assert len(recorded.compiled) == known
    steps(passes, 1, small)

    assert recorded.compiled[-1] == small.shape
    assert len(recorded.compiled) == known + 1


def test_compiled_passes_give_what_the_module_gives() -> None:
    module, same = network(), network()
    recorded = Recorded(1.0, 0.5).compiler()
    compiler = Compiler(traced, recorded.synchronize, recorded.clock)
    with closing(CompiledPasses(module, lambda: math.inf, compiler)) as passes:
        for number in range(PLAIN_PASSES + 25):
            batch = images()
            found, expected = passes(batch), same(batch)
            torch.testing.assert_close(found, expected, msg=f"pass {number}")
        gradients = [
            torch.autograd.grad(output.sum(), list(one.parameters()))
            for output, one in ((found, module), (expected, same))
        ]

    torch.testing.assert_close(*gradients)
    # trying it out has left nothing behind
    torch.testing.assert_close(list(module.buffers()), list(same.buffers()))


@pytest.mark.parametrize("fails", ["compiling", "the first pass", "its gradients"])
def test_a_module_that_cannot_be_compiled_is_used_as_it_is(
    fails: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, values: torch.Tensor) -> torch.Tensor:
            return values.clone()

        @staticmethod
        def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no kernel for its gradients")

    def compiled(module: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        def passes(values: torch.Tensor) -> torch.Tensor:
            output = module(values)
            if fails == "the first pass":
                raise RuntimeError("no kernel for the first pass")
            result: torch.Tensor = Fails.apply(output)  # type: ignore[no-untyped-call] # torch leaves it untyped
            return result

        if fails == "compiling":
            raise RuntimeError("no kernel for compiling")
        return passes

    module, same = network(), network()
    recorded = Recorded(1.0, 0.5).compiler()
    compiler = Compiler(compiled, recorded.synchronize, recorded.clock)
    passes = CompiledPasses(module, lambda: 3600.0, compiler)
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            batch = images()
            torch.testing.assert_close(passes(batch), same(batch))

    assert [record.getMessage() for record in caplog.records] == [
        f"the network is trained as it is, it cannot be compiled: no kernel for {fails}"
    ]


def test_only_whole_batches_are_passed_on_to_be_compiled() -> None:
    module = network()
    seen: list[int] = []

    class Passes(CompiledPasses):
        def __call__(self, values: torch.Tensor) -> torch.Tensor:
            seen.append(len(values))
            return super().__call__(values)

    compiled = Passes(module, lambda: 0.0)
    labels = torch.zeros(32, dtype=torch.int64)
    for micro_batch, counts in ((32, (32, 20)), (16, (32, 20))):
        with closing(Replicas(module, problem(), micro_batch, compiled)) as replicas:
            for count in counts:
                replicas.backward(images(count), labels[:count])

    assert seen == [32, 16, 16]
