from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from automl.domain.candidate import Candidate
from automl.domain.trial import Trial
from automl.search.searchers.tree_search import Effort, Scores, TreeSearch
from automl.search.space import Description
from tests.spaces import Words, candidate

LONG = Words(letters="ab", longest=12)
WIDE = Effort(rounds=6, parents=8, children=8)
NOTHING: set[str] = set()


@dataclass
class Counting:
    """Counts the neighbours that a space has given."""

    space: Words
    mutations: int = 0

    def seeds(self) -> Sequence[Candidate]:
        return self.space.seeds()

    def sample(self, parents: Sequence[Trial], rng: np.random.Generator) -> Candidate:
        return self.space.sample(parents, rng)

    def mutate(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        self.mutations += 1
        return self.space.mutate(candidate, rng)

    def contains(self, candidate: Candidate) -> bool:
        return self.space.contains(candidate)

    def describe(self, candidate: Candidate) -> Description:
        return self.space.describe(candidate)


@dataclass
class Score:
    """Counts what it rates: the more b, the better."""

    calls: list[list[Candidate]] = field(default_factory=list)

    def __call__(self, candidates: Sequence[Candidate]) -> Scores:
        self.calls.append(list(candidates))
        value = np.array([float(one.genotype.count("b")) for one in candidates])
        return Scores(value, value)


def best(
    search: TreeSearch,
    score: Score,
    seed: int = 0,
    roots: Sequence[str] = ("a",),
    samples: Sequence[str] = (),
    excluded: set[str] = NOTHING,
) -> Candidate | None:
    return search.best(
        [(candidate(word), float(word.count("b"))) for word in roots],
        [candidate(word) for word in samples],
        excluded,
        score,
        np.random.default_rng(seed),
    )


def test_effort_is_a_number_of_candidates() -> None:
    effort = Effort(rounds=5, parents=3, children=4)
    space, score = Counting(LONG), Score()

    best(TreeSearch(space, effort), score, roots=["a", "ab", "aab"], samples=["b", "bb"])

    # three roots already: every round expands three nodes
    assert space.mutations == 5 * 3 * 4
    assert len(score.calls) == 1 + 5
    assert sum(map(len, score.calls)) <= 2 + 5 * 3 * 4


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_a_search_ends_after_its_rounds(rounds: int) -> None:
    space = Counting(LONG)

    best(TreeSearch(space, Effort(rounds, parents=1, children=5)), Score(), samples=["b"])

    assert space.mutations == rounds * 5


def test_every_candidate_is_rated_once_and_roots_never() -> None:
    score = Score()

    best(TreeSearch(Words("ab", 3), WIDE), score, roots=["a", "b"], samples=["ab", "ab", "a"])

    rated = [one.identity for call in score.calls for one in call]
    assert len(rated) == len(set(rated))
    assert not {candidate("a").identity, candidate("b").identity} & set(rated)


def test_inner_nodes_are_expanded() -> None:
    found = best(TreeSearch(LONG, replace(WIDE, rounds=8, temperature=0.1)), Score())

    assert found is not None
    assert found.genotype.count("b") >= 6  # eight moves away at most, from a root with none


def test_children_of_a_root_inherit_from_it() -> None:
    root = candidate("a").model_copy(update={"parent": 7})
    search = TreeSearch(LONG, replace(WIDE, rounds=3))

    found = search.best([(root, 0.0)], [], set(), Score(), np.random.default_rng(0))

    assert found is not None
    assert found.parent == 7
    assert 1 <= len(found.moves) <= 3


def test_what_is_excluded_is_never_returned_but_expanded() -> None:
    search, excluded = TreeSearch(LONG, replace(WIDE, rounds=8, temperature=0.1)), set[str]()
    for seed in range(30):
        found = best(search, Score(), seed, excluded=excluded)
        assert found is not None
        assert found.identity not in excluded
        excluded.add(found.identity)
    short = {candidate(word).identity for word in ("b", "ab", "ba", "bb", "aa")}

    found = best(search, Score(), excluded=short)

    assert found is not None
    assert len(found.genotype) > 2


def test_the_best_of_all_that_was_rated_is_returned() -> None:
    score, excluded = Score(), {candidate("bb").identity}

    found = best(TreeSearch(Words("ab", 2), WIDE), score, excluded=excluded)

    rated = {one.genotype for call in score.calls for one in call}
    assert rated == {"b", "aa", "ab", "ba", "bb"}
    assert found is not None
    assert found.genotype in {"b", "ab", "ba"}


def test_what_was_found_early_is_kept() -> None:
    found = best(TreeSearch(Words("ab", 6), WIDE), Score(), roots=["a"], samples=["bbbbbb", "a"])

    assert found == candidate("bbbbbb")


def test_nothing_is_returned_where_everything_is_excluded() -> None:
    search = TreeSearch(Words("a", 2), WIDE)

    assert best(search, Score(), excluded={candidate("aa").identity}) is None
    assert search.best([], [], set(), Score(), np.random.default_rng(0)) is None


def test_equal_generators_find_equal_candidates_whatever_was_searched_before() -> None:
    warm = TreeSearch(LONG, replace(WIDE, rounds=3))
    for seed in range(20):
        roots = ["a", "ba", "aabb"][: 1 + seed % 3]
        scores = Score(), Score()

        warmly = best(warm, scores[0], seed, roots)
        freshly = best(TreeSearch(LONG, replace(WIDE, rounds=3)), scores[1], seed, roots)

        assert warmly == freshly
        assert scores[0].calls == scores[1].calls


def test_children_have_the_moves_of_their_own_path() -> None:
    root = candidate("a").model_copy(update={"parent": 7})
    warm = TreeSearch(Words("ab", 4), WIDE)
    for seed in range(20):
        warmly, freshly = (
            search.best([(root, 0.0)], [], set(), Score(), np.random.default_rng(seed))
            for search in (warm, TreeSearch(Words("ab", 4), WIDE))
        )
        assert warmly == freshly  # moves included


def test_a_later_search_meets_children_that_an_earlier_one_has_drawn() -> None:
    space = Counting(LONG)
    search = TreeSearch(space, Effort(rounds=1, parents=1, children=8))
    for seed in range(100):
        best(search, Score(), seed)

    assert space.mutations <= TreeSearch._BLOCKS * 8  # of any node, there are only so many


def test_the_colder_it_gets_the_more_the_promising_are_expanded() -> None:
    hot, cold = (
        TreeSearch(LONG, Effort(rounds=1, parents=1, children=1, temperature=t)) for t in (1e6, 0.1)
    )
    scores = Score(), Score()
    for seed in range(200):
        best(hot, scores[0], seed, ["aaaa", "bbbb"])
        best(cold, scores[1], seed, ["aaaa", "bbbb"])

    good = [
        sum(one.genotype.count("b") >= 3 for call in score.calls for one in call)
        / sum(map(len, score.calls))
        for score in scores
    ]
    assert 0.35 < good[0] < 0.65
    assert good[1] == 1
