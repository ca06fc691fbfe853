from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.stats import binom

from automl.domain.candidate import Candidate
from automl.domain.trial import Measurement, Outcome, Trial
from automl.errors import ConfigError, SearchSpaceExhaustedError
from automl.search.searcher import Searcher, Suggestion
from automl.search.searchers.bayesian import BayesianOptions, BayesianSearcher
from automl.search.searchers.random import RandomSearcher
from automl.search.searchers.tree_search import Effort
from automl.search.space import Description
from automl.search.strategies import SEED
from automl.search.surrogate.acquisition import Acquisition
from automl.tracks.image.space import NetworkMorphismSpace
from tests.spaces import ELSEWHERE, Words, candidate, history_of, loss_of, measured, trial

SMALL = Words("abC", longest=3)  # 39 candidates
LARGE = Words("abcD", longest=8, rates=(0.1, 0.3, 0.5, 0.7, 0.9))
QUICK = BayesianOptions(effort=Effort(rounds=3, parents=4, children=4, samples=16))


def known(count: int, seed: int) -> list[Trial]:
    """Return trials of the seeds and of as many others."""
    seeds = list(LARGE.seeds())
    draws = LARGE.draws(count + len(seeds), np.random.default_rng(seed))
    return measured([*seeds, *[one for one in draws if one not in seeds][:count]])


def search(
    searcher: Callable[[], Searcher], steps: int, seed: int = 0, start: list[Trial] | None = None
) -> list[tuple[Trial, Suggestion]]:
    """Search as two workers do: while one trial is evaluated, the next candidate is chosen."""
    told, found = list(start or []), list[tuple[Trial, Suggestion]]()
    for number in range(len(told), len(told) + steps):
        last = [trial(one.number, s.candidate, outcome=None) for one, s in found[-1:]]
        history = history_of([*told, *(one for one, _ in found[:-1]), *last])
        suggestion = searcher().propose(history, np.random.default_rng([seed, number]))
        loss = loss_of(suggestion.candidate)
        found.append((trial(number, suggestion.candidate, loss), suggestion))
    return found


def test_seeds_come_first_and_in_order() -> None:
    found = search(lambda: BayesianSearcher(LARGE, QUICK), 3)

    assert [s.candidate for _, s in found[:2]] == list(LARGE.seeds())
    assert [s.strategy for _, s in found[:2]] == [SEED, SEED]
    assert found[2][1].strategy != SEED


def test_the_first_candidates_are_random() -> None:
    found = search(lambda: BayesianSearcher(LARGE, replace(QUICK, initial=6, random_share=0)), 10)

    strategies = [s.strategy for _, s in found]
    assert strategies == [SEED] * 2 + [RandomSearcher.name] * 4 + [BayesianSearcher.name] * 4


def test_nothing_is_proposed_twice_until_nothing_is_left() -> None:
    thorough = Effort(rounds=6, parents=8, children=8, samples=64)
    options = BayesianOptions(random_share=0, effort=thorough)  # random search would give up early
    searcher, trials = BayesianSearcher(SMALL, options), list[Trial]()
    for number in range(SMALL.size):
        rng = np.random.default_rng(number)
        one = searcher.propose(history_of(trials), rng).candidate
        assert one.identity not in {t.candidate.identity for t in trials if t.candidate}
        trials.append(trial(number, one, loss_of(one)))

    with pytest.raises(SearchSpaceExhaustedError, match=f"not among the {SMALL.size} known"):
        searcher.propose(history_of(trials), np.random.default_rng(99))


def test_what_is_being_evaluated_is_not_proposed_again() -> None:
    done = known(8, 0)
    searcher, waiting = BayesianSearcher(LARGE, QUICK), list[Trial]()
    for number in range(10, 20):
        rng = np.random.default_rng(0)  # the same for all, as if workers asked at once
        one = searcher.propose(history_of([*done, *waiting]), rng).candidate
        waiting.append(trial(number, one, outcome=None))

    identities = [t.candidate.identity for t in (*done, *waiting) if t.candidate]
    assert len(set(identities)) == 20


@pytest.mark.parametrize("seed", range(2))
def test_a_proposal_is_a_function_of_history_and_generator(seed: int) -> None:
    warm = BayesianSearcher(LARGE, QUICK)

    warmly = search(lambda: warm, 30, seed)
    freshly = search(lambda: BayesianSearcher(LARGE, QUICK), 30, seed)

    assert [s for _, s in warmly] == [s for _, s in freshly]
    assert {s.strategy for _, s in warmly} >= {SEED, BayesianSearcher.name}


def test_failures_change_nothing_in_that() -> None:
    done = known(12, 1)
    failed = [
        trial(20 + n, one, None, Outcome.FAILED)
        for n, one in enumerate(LARGE.draws(18, np.random.default_rng(1))[12:])
    ]
    warm = BayesianSearcher(LARGE, QUICK)
    for count in (0, 3, 6, 1):
        history = history_of([*done, *failed[:count]])
        first, second = (
            one.propose(history, np.random.default_rng(5))
            for one in (warm, BayesianSearcher(LARGE, QUICK))
        )
        assert first == second


def test_equal_candidates_come_from_equal_generators_only() -> None:
    history, searcher = history_of(known(12, 1)), BayesianSearcher(LARGE, QUICK)

    found = [searcher.propose(history, np.random.default_rng(n)) for n in (1, 1, 2, 3, 4, 5)]

    assert found[0] == found[1]
    assert len({one.candidate.identity for one in found}) > 2


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_random_search_has_its_share(share: float) -> None:
    history = history_of(known(8, 2))
    effort = Effort(rounds=1, parents=1, children=2, samples=2)
    searcher = BayesianSearcher(LARGE, BayesianOptions(random_share=share, effort=effort))
    count = 200

    strategies = Counter(
        searcher.propose(history, np.random.default_rng(n)).strategy for n in range(count)
    )

    low, high = binom.interval(0.999, count, share)
    assert low <= strategies["random"] <= high
    assert strategies["random"] + strategies["bayesian"] == count


def test_on_a_new_snapshot_the_best_are_measured_again_first() -> None:
    words = ["bbb", "aaa", "bb", "b", "abc", "D"]
    night = [
        trial(n, candidate(word, 0.1), loss_of(candidate(word, 0.1)), snapshot=ELSEWHERE)
        for n, word in enumerate(words)
    ]

    found = search(lambda: BayesianSearcher(LARGE, QUICK), 6, start=night)

    assert [s.strategy for _, s in found[:3]] == ["repeat"] * 3
    assert [s.repeats for _, s in found] == [0, 2, 3, None, None, None]
    assert [s.candidate.genotype for _, s in found[:3]] == ["bbb", "bb", "b"]
    # bb is a seed too, and has just been measured
    assert [s.strategy for _, s in found[3:5]] == [SEED, RandomSearcher.name]


def test_only_what_the_space_holds_is_measured_again() -> None:
    night = [trial(0, candidate("D"), 0.1, snapshot=ELSEWHERE)]
    night.append(trial(1, candidate("c"), 0.9, snapshot=ELSEWHERE))

    found = search(lambda: BayesianSearcher(replace(LARGE, letters="abc"), QUICK), 2, start=night)

    assert found[0][1].repeats == 1
    assert found[1][1].repeats is None


def test_children_inherit_from_trials_of_this_snapshot() -> None:
    found = search(lambda: BayesianSearcher(LARGE, replace(QUICK, random_share=0)), 14)

    for one, suggestion in found:
        if suggestion.strategy == BayesianSearcher.name:
            child = suggestion.candidate
            assert child.parent is not None
            assert child.parent < one.number
            parent = found[child.parent][1].candidate
            path = [parent.genotype, *(move["to"] for move in child.moves)]
            assert path[-1] == child.genotype
            assert 1 <= len(child.moves) <= 1 + QUICK.effort.rounds
            assert all(abs(len(a) - len(b)) <= 1 for a, b in itertools.pairwise(path))


def test_what_has_failed_is_not_tried_again() -> None:
    space = Words("abC", longest=2)
    tried = [candidate(word, 0.5) for word in ("a", "bb", "b", "ab", "ba", "C", "aC", "Ca", "Cb")]
    trials = [
        trial(n, one, *((None, Outcome.FAILED) if n > 1 else (loss_of(one),)))
        for n, one in enumerate(tried)
    ]
    searcher = BayesianSearcher(space, replace(QUICK, random_share=0))

    found = [searcher.propose(history_of(trials), np.random.default_rng(n)) for n in range(20)]

    assert not {one.candidate.identity for one in found} & {one.identity for one in tried}


def test_without_anything_measured_the_search_goes_on_at_random() -> None:
    failed = [
        trial(n, one, None, Outcome.FAILED)
        for n, one in enumerate([*LARGE.seeds(), *LARGE.draws(8, np.random.default_rng(3))])
    ]

    suggestion = BayesianSearcher(LARGE, QUICK).propose(
        history_of(failed), np.random.default_rng(0)
    )

    assert suggestion.strategy == RandomSearcher.name


def test_candidates_that_are_likely_to_fail_are_avoided() -> None:
    trials = known(60, 4)
    failed = [  # the more b the better, but two in a row run out of memory
        replace(one, outcome=Outcome.OUT_OF_MEMORY, measurement=Measurement())
        if one.candidate and "bb" in one.candidate.genotype
        else one
        for one in trials
    ]
    fine = [one for one in failed if one.outcome is Outcome.COMPLETED]
    seed = trial(99, LARGE.seeds()[1], loss_of(LARGE.seeds()[1]))
    searcher = BayesianSearcher(LARGE, replace(QUICK, random_share=0))

    def share_of_bb(trials: list[Trial]) -> float:
        history = history_of(trials)
        found = [searcher.propose(history, np.random.default_rng(n)) for n in range(25)]
        return sum("bb" in one.candidate.genotype for one in found) / 25

    assert share_of_bb(failed) < 0.7 * share_of_bb([*fine, seed])


@pytest.mark.parametrize("acquisition", list(Acquisition))
def test_it_finds_better_candidates_than_random_search(acquisition: Acquisition) -> None:
    options = replace(QUICK, acquisitions=(acquisition,))
    searcher = BayesianSearcher(LARGE, options)
    bayesian = search(lambda: searcher, 40)
    random = search(lambda: RandomSearcher(LARGE), 40)

    def losses(found: list[tuple[Trial, Suggestion]]) -> list[float]:
        return sorted(loss_of(s.candidate) for _, s in found)[:5]

    assert max(losses(bayesian)) < min(losses(random))


@dataclass(frozen=True)
class Priced(Words):
    """A space whose candidates differ in nothing but their price where they are the same word."""

    price: Callable[[float], float | None] = lambda rate: 1000**rate

    def describe(self, candidate: Candidate) -> Description:
        price = self.price(candidate.hyperparameters["rate"])
        return replace(super().describe(candidate), genes=(), spent=price)


PER_COST = Acquisition.LOG_EXPECTED_IMPROVEMENT_PER_COST


def test_of_candidates_that_improve_as_much_the_cheaper_ones_are_proposed() -> None:
    space, history = Priced(LARGE.letters, LARGE.longest, LARGE.rates), history_of(known(12, 1))

    def mean_rate(acquisition: Acquisition) -> float:
        options = replace(QUICK, acquisitions=(acquisition,), random_share=0)
        searcher = BayesianSearcher(space, options)
        found = [searcher.propose(history, np.random.default_rng(n)).candidate for n in range(20)]
        return float(np.mean([one.hyperparameters["rate"] for one in found]))

    assert mean_rate(PER_COST) < 0.2
    assert mean_rate(Acquisition.LOG_EXPECTED_IMPROVEMENT) > 0.35


def test_a_space_that_describes_no_costs_cannot_be_searched_by_them() -> None:
    space = Priced(LARGE.letters, LARGE.longest, LARGE.rates, price=lambda _: None)
    searcher = BayesianSearcher(space, replace(QUICK, acquisitions=(PER_COST,), random_share=0))

    with pytest.raises(ConfigError, match="needs predicted costs, and Priced describes none"):
        searcher.propose(history_of(known(8, 1)), np.random.default_rng(0))


def test_improvement_per_cost_is_for_those_who_ask_for_it() -> None:
    assert PER_COST not in BayesianOptions().acquisitions


def test_it_searches_network_morphs() -> None:
    space = NetworkMorphismSpace(image_size=8, classes=3)
    searcher, trials = BayesianSearcher(space, replace(QUICK, random_share=0)), list[Trial]()
    for number in range(16):
        rng = np.random.default_rng(number)
        one = searcher.propose(history_of(trials), rng).candidate
        costs = space.describe(one).costs
        trials.append(trial(number, one, float(abs(np.log2(costs["parameters"]) - 17))))

    assert len({t.candidate.identity for t in trials if t.candidate}) == 16
    losses = [t.loss for t in trials if t.loss is not None]
    assert np.mean(losses[10:]) < np.mean(losses[:6])
