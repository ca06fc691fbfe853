"""Drawing a move and reading a genotype stay cheap on deep networks: a search does both often.

The bounds are several times what an idle core of 2026 takes (about 1 ms), so that only a change of
the amount of work fails them. Processor time is measured, not the clock.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest

from automl.morphism.architecture import Architecture, Node, Op
from automl.morphism.moves import Limits, random_move
from automl.morphism.nodes import conv

BOUND_MS = 6.0


def deep(blocks: int, *, residual: bool) -> Architecture:
    """A network of twice as many convolutions as blocks, each with batch norm and ReLU."""
    nodes = [Node(Op.INPUT), conv(0, 16)]

    def follow(node: Node) -> int:
        nodes.append(node)
        return len(nodes) - 1

    last = follow(Node(Op.RELU, (1,)))
    for _ in range(blocks):
        start = last
        for _ in range(2):
            norm = follow(Node(Op.BATCH_NORM, (follow(conv(last, 16)),)))
            last = follow(Node(Op.RELU, (norm,)))
        if residual:
            last = follow(Node(Op.ADD, (start, last)))
    pooled = follow(Node(Op.GLOBAL_POOL, (last,)))
    follow(Node(Op.DENSE, (pooled,), {"units": 10}))
    return Architecture(16, 3, tuple(nodes)).canonical()[0]


def median_ms(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(40):
        start = time.process_time()
        work()
        taken.append(1e3 * (time.process_time() - start))
    return statistics.median(taken)


@pytest.mark.parametrize("residual", [False, True])
def test_a_move_is_drawn_and_a_genotype_read_in_milliseconds(residual: bool) -> None:  # noqa: FBT001
    parent = deep(30, residual=residual)
    text, rng = parent.genotype(), np.random.default_rng(0)

    def draw() -> str:
        found = random_move(parent, Limits(depth=200), rng)
        assert found is not None
        return found[1].genotype()

    assert len(parent.nodes) >= 180
    assert median_ms(draw) < BOUND_MS
    assert median_ms(lambda: Architecture.from_genotype(text)) < BOUND_MS
