from __future__ import annotations

from dataclasses import replace

import pytest

from automl.domain.trial import Outcome, Trial
from automl.search.searchers.continuity import REPEATS, next_repeat
from automl.search.space import origin
from automl.search.strategies import REPEAT
from tests.spaces import ELSEWHERE, Words, candidate, history_of, trial

SPACE = Words()


def other(number: int, word: str, loss: float, snapshot: str = ELSEWHERE) -> Trial:
    return trial(number, candidate(word), loss, snapshot=snapshot)


NIGHT = [other(0, "a", 0.5), other(1, "b", 0.1), other(2, "C", 0.4), other(3, "ab", 0.2)]


def test_the_best_of_another_snapshot_are_measured_again_best_first() -> None:
    trials, repeats = list(NIGHT), []
    for number in range(10, 10 + REPEATS):
        suggestion = next_repeat(history_of(trials), SPACE)
        assert suggestion is not None
        assert suggestion.strategy == REPEAT
        repeats.append(suggestion.repeats)
        trials.append(trial(number, suggestion.candidate, outcome=None))

    assert repeats == [1, 3, 2]
    assert next_repeat(history_of(trials), SPACE) is None


def test_a_repeat_starts_from_its_own_weights() -> None:
    child = candidate("b").model_copy(update={"parent": 0, "moves": ({"to": "b"},)})

    suggestion = next_repeat(history_of([trial(4, child, 0.1, snapshot=ELSEWHERE)]), SPACE)

    assert suggestion is not None
    assert suggestion.candidate.genotype == "b"
    assert suggestion.candidate.parent == 4
    assert suggestion.candidate.moves == ()


def test_what_the_space_no_longer_holds_is_passed_over() -> None:
    suggestion = next_repeat(history_of(NIGHT), replace(SPACE, letters="aC"))

    assert suggestion is not None
    assert suggestion.candidate == origin(NIGHT[2])


@pytest.mark.parametrize(
    "useless",
    [
        trial(5, candidate("b"), 0.0, Outcome.PRUNED, ELSEWHERE),
        trial(5, candidate("b"), None, Outcome.FAILED, ELSEWHERE),
        trial(5, candidate("b"), None, Outcome.COMPLETED, ELSEWHERE),
        trial(5, candidate("b"), None, None, ELSEWHERE),
    ],
)
def test_only_what_could_win_is_repeated(useless: Trial) -> None:
    suggestion = next_repeat(history_of([useless, NIGHT[0]]), SPACE)

    assert suggestion is not None
    assert suggestion.repeats == 0


def test_a_candidate_that_was_measured_on_two_snapshots_is_repeated_once() -> None:
    trials = [other(0, "a", 0.3, "before"), other(1, "a", 0.2), other(2, "b", 0.9)]

    first = next_repeat(history_of(trials), SPACE)
    assert first is not None
    second = next_repeat(history_of([*trials, trial(3, first.candidate, 0.3)]), SPACE)
    assert second is not None

    assert (first.repeats, second.repeats) == (1, 2)


def test_equal_losses_are_repeated_by_number() -> None:
    trials = [other(number, word, 0.5) for number, word in [(3, "a"), (1, "b"), (2, "C")]]

    suggestion = next_repeat(history_of(trials), SPACE)

    assert suggestion is not None
    assert suggestion.repeats == 1


def test_on_the_same_snapshot_nothing_is_repeated() -> None:
    assert next_repeat(history_of([other(0, "a", 0.1, "here")]), SPACE) is None
    assert next_repeat(history_of([]), SPACE) is None


def test_a_repeat_that_failed_is_not_tried_again() -> None:
    failed = trial(9, origin(NIGHT[1]), None, Outcome.FAILED)

    suggestion = next_repeat(history_of([*NIGHT, failed]), SPACE)

    assert suggestion is not None
    assert suggestion.repeats == 3
