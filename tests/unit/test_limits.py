"""Limits: what they bound, who is refused, and that no strategy proposes beyond them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from automl.domain.candidate import Candidate
from automl.domain.trial import Trial
from automl.errors import ConfigError, Problem
from automl.morphism.architecture import Architecture
from automl.morphism.costs import DeviceFactors
from automl.morphism.limits import LatencyLimit, Limits, MemoryLimit
from automl.morphism.memory import TrainingPlan
from automl.morphism.moves import GROWING, Move, inherit, random_move
from automl.morphism.seeds import seed_architectures
from automl.search.searcher import Searcher
from automl.search.searchers.bayesian import BayesianOptions, BayesianSearcher
from automl.search.searchers.evolution import RegularizedEvolution
from automl.search.searchers.random import RandomSearcher
from automl.search.searchers.tree_search import Effort
from automl.tracks.image.space import NetworkMorphismSpace
from automl.training.initialization import initial_weights
from tests.spaces import ELSEWHERE, history_of, trial

FACTORS = DeviceFactors(ps_per_flop=25, ps_per_byte=100, ns_per_layer=15_000)
SEEDS = seed_architectures(8, 10)
PLAN = TrainingPlan(batch_size=64, evaluation_batch=100, dataset_bytes=1000)
MEMORY = MemoryLimit(1, PLAN)
EFFORT = Effort(rounds=3, parents=3, children=3, samples=3)
STRATEGIES: dict[str, Callable[[NetworkMorphismSpace], Searcher]] = {
    "random": RandomSearcher,
    "evolution": lambda space: RegularizedEvolution(space, population=6),
    "bayesian": lambda space: BayesianSearcher(space, BayesianOptions(effort=EFFORT)),
}


def around(architecture: Architecture, slack: float = 1.0) -> Limits:
    """Return limits of every kind that an architecture just meets, or a larger one."""
    return Limits(
        parameters=int(slack * architecture.parameters),
        latency=LatencyLimit(slack * FACTORS.latency_ms(architecture), FACTORS),
        memory=MemoryLimit(int(slack * MEMORY.need(architecture)), PLAN),
    )


def architecture_of(candidate: Candidate) -> Architecture:
    return Architecture.from_genotype(candidate.genotype)


def proposals(
    searcher: Searcher, count: int, start: Sequence[Trial] = ()
) -> list[tuple[Trial, Candidate]]:
    """Search on, with random losses, after some trials."""
    trials, losses = list(start), np.random.default_rng(0)
    found = []
    for number in range(len(trials), len(trials) + count):
        suggestion = searcher.propose(history_of(trials), np.random.default_rng([1, number]))
        trials.append(trial(number, suggestion.candidate, float(losses.random())))
        found.append((trials[-1], suggestion.candidate))
    return found


def grown(count: int) -> list[Candidate]:
    """Return candidates that an earlier run without limits may have evaluated."""
    rng, space, found = np.random.default_rng(3), NetworkMorphismSpace(8, 10), []
    for number in range(count):
        seed = space.seeds()[number % 3]
        architecture = architecture_of(seed)
        for _ in range(6):
            drawn = random_move(architecture, Limits(), rng, GROWING)
            assert drawn is not None
            architecture = drawn[1]
        found.append(seed.model_copy(update={"genotype": architecture.genotype()}))
    return found


@pytest.mark.parametrize("name", ["parameters", "latency", "memory"])
def test_each_limit_allows_what_just_meets_it_and_no_more(name: str) -> None:
    exact = Limits(**{name: getattr(around(SEEDS[1]), name)})
    less = Limits(**{name: getattr(around(SEEDS[1], 0.999), name)})

    assert exact.allow(SEEDS[1])
    assert not less.allow(SEEDS[1])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("slack", [1.0, 1.3])
def test_no_proposal_is_beyond_the_limits(strategy: str, slack: float) -> None:
    limits = around(SEEDS[0], slack)
    space = NetworkMorphismSpace(8, 10, limits)

    found = proposals(STRATEGIES[strategy](space), 30)

    assert all(limits.allow(architecture_of(candidate)) for _, candidate in found)
    assert len({architecture_of(candidate).digest for _, candidate in found}) > 10


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nor_is_any_after_a_run_with_wider_limits(strategy: str) -> None:
    limits = around(SEEDS[0])
    space = NetworkMorphismSpace(8, 10, limits)
    before = [trial(n, one, 0.1 * n) for n, one in enumerate(grown(8))]
    assert not any(limits.allow(architecture_of(t.candidate)) for t in before if t.candidate)

    found = proposals(STRATEGIES[strategy](space), 24, before)

    assert all(limits.allow(architecture_of(candidate)) for _, candidate in found)


def test_candidates_of_another_snapshot_are_measured_again_only_within_the_limits() -> None:
    space = NetworkMorphismSpace(8, 10, around(SEEDS[0]))
    night = [trial(n, one, 0.1 * n, snapshot=ELSEWHERE) for n, one in enumerate(grown(4))]
    night.append(trial(4, space.seeds()[0], 0.9, snapshot=ELSEWHERE))

    suggestion = STRATEGIES["bayesian"](space).propose(history_of(night), np.random.default_rng(0))

    assert suggestion.repeats == 4


def test_a_candidate_beyond_the_limits_is_shrunk_and_still_inherits() -> None:
    limits = around(SEEDS[0])
    space, rng = NetworkMorphismSpace(8, 10, limits), np.random.default_rng(0)
    inheriting = 0
    for parent in grown(9):
        child = space.mutate(parent.model_copy(update={"parent": 0}), rng)
        assert limits.allow(architecture_of(child))
        if child.parent is None:
            continue
        start = architecture_of(parent)
        moves = [Move.from_json(document) for document in child.moves]
        end, weights = inherit(start, initial_weights(start, (0,)), moves)
        assert end.genotype() == child.genotype
        assert {key: array.shape for key, array in weights.items()} == end.weight_shapes()
        inheriting += 1

    assert inheriting >= 6


def test_seeds_beyond_a_limit_are_left_out() -> None:
    latencies = [FACTORS.latency_ms(seed) for seed in SEEDS]
    limits = Limits(latency=LatencyLimit(sorted(latencies)[1], FACTORS))

    space = NetworkMorphismSpace(8, 10, limits)

    assert len(space.seeds()) == 2
    assert all(limits.allow(architecture_of(seed)) for seed in space.seeds())


def test_limits_that_allow_no_seed_are_all_named_with_what_the_smallest_needs() -> None:
    limits = Limits(parameters=1000, latency=LatencyLimit(0.01, FACTORS), memory=MEMORY)

    with pytest.raises(ConfigError, match="8 px and 10 classes starts from exceeds") as caught:
        NetworkMorphismSpace(8, 10, limits)

    least = min(seed.parameters for seed in SEEDS)
    least_ms = min(FACTORS.latency_ms(seed) for seed in SEEDS)
    least_bytes = min(MEMORY.need(seed) for seed in SEEDS)
    assert list(caught.value.problems) == [
        Problem("search.limits.parameters", f"the smallest has {least:,}, the limit is 1,000"),
        Problem(
            "search.limits.latency_ms",
            f"the smallest has {least_ms:.4g} ms, the limit is 0.01 ms",
        ),
        Problem(
            "search.limits.device_memory",
            f"the smallest has {least_bytes:,} bytes, the limit is 1 bytes",
        ),
    ]


def test_limits_that_exclude_every_seed_together_are_named_too() -> None:
    seeds, moving = seed_architectures(16, 10), DeviceFactors(0, ps_per_byte=100, ns_per_layer=0)
    least = min(seed.parameters for seed in seeds)
    quickest = min(seeds, key=moving.latency_ms)
    assert quickest.parameters > least
    limits = Limits(parameters=least, latency=LatencyLimit(moving.latency_ms(quickest), moving))

    with pytest.raises(ConfigError) as caught:
        NetworkMorphismSpace(16, 10, limits)

    paths = [problem.path for problem in caught.value.problems]
    assert paths == ["search.limits.parameters", "search.limits.latency_ms"]


def test_a_limit_that_no_study_file_sets_has_no_key_path() -> None:
    with pytest.raises(ConfigError) as caught:
        NetworkMorphismSpace(8, 10, replace(Limits(), macs=1))

    assert [problem.path for problem in caught.value.problems] == ["macs"]
