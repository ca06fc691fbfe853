from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.domain.trial import Outcome
from automl.search.pruning import (
    ETA,
    LEAST_EPOCHS,
    Incumbent,
    JudgedPoint,
    Judging,
    curve_verdict,
    halving_rungs,
    incumbent,
    least_log_loss,
    lengths,
    planned_epochs,
    rung_verdict,
    verdict,
)
from tests.stories import Story

JUDGING = Judging(unjudged=frozenset({"weight_decay"}))
PARENT = [2.0, 1.0, 0.8, 0.9, 0.6, 0.5, 0.45, 0.42, 0.4, 0.41]


@pytest.mark.parametrize(
    ("planned", "expected"),
    [
        (1, (1,)), (3, (3,)), (7, (7,)), (9, (3, 9)), (15, (5, 15)), (27, (3, 9, 27)),
        (30, (3, 10, 30)), (100, (4, 11, 33, 100)),
    ],
)  # fmt: skip
def test_rungs_go_down_by_thirds(planned: int, expected: tuple[int, ...]) -> None:
    assert halving_rungs(planned).shares == tuple(rung / planned for rung in expected)


@given(st.integers(1, 500))
def test_a_training_reaches_every_rung_and_the_last_at_its_end(planned: int) -> None:
    rungs = halving_rungs(planned)
    ends = [round(share * planned) for share in rungs.shares]
    reached = [rungs.passed(epochs / planned) for epochs in range(1, planned + 1)]

    assert sorted({rung for rung in reached if rung}) == list(range(1, len(ends) + 1))
    assert all(reached[epochs - 1] == rung for rung, epochs in enumerate(ends, start=1))
    assert all((reached[e - 2] if e > 1 else None) != rung for rung, e in enumerate(ends, start=1))
    assert reached[-1] == len(ends)
    assert planned < LEAST_EPOCHS or min(ends) >= LEAST_EPOCHS


def test_one_long_epoch_may_pass_several_rungs() -> None:
    assert [halving_rungs(30).passed(share) for share in (0.09, 0.1, 0.32, 0.5, 1.0)] == [
        None,
        1,
        1,
        2,
        3,
    ]


@given(st.integers(1, 500))
def test_lengths_are_few_and_less_than_half_apart(full: int) -> None:
    found = lengths(full)

    assert found[-1] == full
    assert found[0] == min(full, LEAST_EPOCHS)
    assert list(found) == sorted(set(found))
    assert len(found) <= 2 + 2 * math.log2(max(1, full / LEAST_EPOCHS))
    assert all(longer <= 1.42 * length + 1 for length, longer in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (0.40, 3),  # as good as its parent at once: two more epochs
        (0.30, 3),
        (0.45, 3),  # from epoch 6 to the best one, 8, the parent needed two
        (0.50, 4),
        (0.60, 6),  # 1 + 4, rounded up
        (0.85, 8),  # from epoch 2 on, although epoch 3 was worse again
        (1.99, 8),
        (2.01, 30),  # worse than its parent ever was: it has lost what it inherited
    ],
)
def test_a_child_trains_as_long_as_its_parent_did_from_there(first: float, expected: int) -> None:
    assert planned_epochs(PARENT, first, full=30) == expected


@given(
    parent=st.lists(st.floats(0.01, 10), min_size=1, max_size=40),
    first=st.floats(0.01, 10),
    full=st.integers(1, 40),
)
def test_a_child_trains_two_more_epochs_at_least_and_never_more_than_the_full_number(
    parent: list[float], first: float, full: int
) -> None:
    planned = planned_epochs(parent, first, full)

    assert min(full, 3) <= planned <= full
    assert planned in lengths(full)
    assert planned <= planned_epochs(parent, first + 0.1, full)


def story(scores: Sequence[float], *, error: float = 0.01, rung: int = 1) -> Story:
    """Return a study of fresh trials at a rung."""
    told = Story()
    for score in scores:
        told.rung(told.trial(), score, error, rung)
    return told


def verdicts(told: Story, rung: int = 1) -> list[str | None]:
    return [rung_verdict(told.study, n, rung, JUDGING) for n in range(len(told.study.trials))]


def test_who_is_not_among_the_best_third_is_stopped() -> None:
    reasons = verdicts(story([0.5, 0.6, 0.7, 0.8, 0.55, 0.75, 0.79, 0.77]))

    assert [n for n, reason in enumerate(reasons) if reason] == [4, 7]
    assert reasons[4] == (
        "rung 1 (3 epochs): score 0.5500 ± 0.0100, the best third of 5 trials has 0.8000 or better"
    )
    assert reasons[7] is not None
    assert reasons[7].endswith("the best third of 8 trials has 0.7900 or better")


def test_without_a_third_everyone_goes_on() -> None:
    assert verdicts(story([0.9, 0.1])) == [None, None]
    assert verdicts(story([0.9, 0.8, 0.1]))[2] is not None
    assert ETA == 3


def test_who_is_within_half_a_standard_error_of_the_best_third_goes_on() -> None:
    scores = [0.9, 0.8, 0.85]

    assert verdicts(story(scores, error=0.08))[2] is not None
    assert verdicts(story(scores, error=0.12))[2] is None


def test_at_the_last_rung_nobody_is_stopped() -> None:
    assert verdicts(story([0.9, 0.9, 0.9, 0.1], rung=3), rung=3) == [None] * 4


def test_a_verdict_stays_what_it_was_when_others_come() -> None:
    rng, told = np.random.default_rng(0), Story()
    for _ in range(40):
        told.trial()
    first: dict[int, str | None] = {}
    for n in rng.permutation(40).tolist():
        told.rung(n, float(rng.random()), error=0.02)
        first[n] = rung_verdict(told.study, n, 1, JUDGING)

    assert dict(enumerate(verdicts(told))) == first
    assert 15 < sum(reason is not None for reason in first.values()) < 35


def with_rivals(told: Story, parent: int | None, planned: int = 30) -> None:
    for _ in range(5):
        told.rung(told.trial(parent), 0.9, planned=planned)


def is_stopped(told: Story, n: int, planned: int = 30) -> bool:
    told.rung(n, 0.1, planned=planned)
    return rung_verdict(told.study, n, 1, JUDGING) is not None


def test_children_and_fresh_trials_do_not_compete() -> None:
    told = Story()
    parent = told.trial()
    with_rivals(told, parent)

    assert not is_stopped(told, told.trial())
    assert is_stopped(told, told.trial(parent))


def test_trials_of_other_lengths_do_not_compete() -> None:
    told = Story()
    parent = told.trial()
    with_rivals(told, parent, planned=15)

    assert not is_stopped(told, told.trial(parent), planned=22)
    assert is_stopped(told, told.trial(parent), planned=15)


def test_trials_that_saw_smaller_images_do_not_compete_with_others() -> None:
    told = Story()
    with_rivals(told, None)
    small, whole = told.trial(), told.trial()
    told.rung(small, 0.1, resolution=32)
    told.rung(whole, 0.1, resolution=64)

    assert rung_verdict(told.study, small, 1, JUDGING) is None
    assert rung_verdict(told.study, whole, 1, JUDGING) is not None


def test_a_child_with_other_regularisation_competes_with_nobody() -> None:
    told = Story()
    parent = told.trial(genes={"weight_decay": 1.0, "learning_rate": 1.0})
    with_rivals(told, None)
    for _ in range(5):
        told.rung(told.trial(parent, {"weight_decay": 0.1, "learning_rate": 1.0}), 0.9)

    assert not is_stopped(told, told.trial(parent, {"weight_decay": 2.0, "learning_rate": 1.0}))
    changed = {"weight_decay": 1.0, "learning_rate": 2.0}
    assert not is_stopped(told, told.trial(parent, changed))  # nor are those of 0.9 its rivals
    for _ in range(5):
        told.rung(told.trial(parent, changed), 0.9)
    assert is_stopped(told, told.trial(parent, changed))


def test_fresh_trials_compete_with_those_of_equal_regularisation() -> None:
    told = Story()
    with_rivals(told, None)

    assert not is_stopped(told, told.trial(genes={"weight_decay": 2.0}))
    assert is_stopped(told, told.trial(genes={"weight_decay": 1.0}))


def test_who_repeats_a_trial_competes_with_nobody() -> None:
    told = Story()
    with_rivals(told, 0)

    assert not is_stopped(told, told.trial(0, repeats=0))


@pytest.mark.parametrize(
    "other",
    [{"snapshot": "t"}, {"key": "l"}, {"limits": {"parameters": 10}}],
    ids=["snapshot", "generation", "limits"],
)
def test_trials_of_what_does_not_compare_do_not_compete(other: dict[str, Any]) -> None:
    told = Story()
    with_rivals(told, None)
    told.finish(0, 0.9, 0.1)
    told.run("second", **other)
    mine = told.trial()

    assert not is_stopped(told, mine)
    assert incumbent(told.study, mine) is None


def test_trials_of_an_earlier_run_compete() -> None:
    told = Story()
    with_rivals(told, None)
    told.finish(0, 0.9, 0.1)
    told.run("second")
    mine = told.trial()

    assert is_stopped(told, mine)
    assert incumbent(told.study, mine) is not None


def test_the_incumbent_is_who_would_win() -> None:
    told = Story()
    for _ in range(4):
        told.trial()
    told.finish(0, 0.7, 0.5)
    told.finish(1, 0.8, 0.4)
    told.finish(2, 0.9, 0.3, Outcome.PRUNED)

    assert incumbent(told.study, 3) == Incumbent(1, -0.8, 0.4)


BEST = Incumbent(7, loss=-0.9, log_loss=0.3)


def one_cycle(epochs: int, planned: int, end: float, annealed: float = 0.1) -> list[float]:
    """Return log losses that fall as a power law, and once more as the learning rate comes down."""
    found = []
    for epoch in range(1, epochs + 1):
        done = epoch / planned
        rate = min(1.0, (1 + math.cos(math.pi * max(0.0, (done - 0.2) / 0.8))) / 2)
        found.append(end * done**-0.3 * (1 + annealed / (1 - annealed) * rate))
    return found


def points(losses: Sequence[float], score: float = 0.5, planned: int = 30) -> list[JudgedPoint]:
    return [JudgedPoint(-score, loss, n / planned) for n, loss in enumerate(losses, start=1)]


@pytest.mark.parametrize("end", [0.1, 0.2, 0.29])
@pytest.mark.parametrize("planned", [6, 15, 30])
def test_a_one_cycle_curve_that_ends_below_the_incumbent_is_never_stopped(
    end: float, planned: int
) -> None:
    for done in range(1, planned + 1):
        curve = one_cycle(done, planned, end)
        assert curve_verdict(points(curve, planned=planned), BEST) is None


def test_a_one_cycle_curve_that_ends_far_above_the_incumbent_is_stopped_on_its_way() -> None:
    stopped = [
        done for done in range(1, 31) if curve_verdict(points(one_cycle(done, 30, 0.6)), BEST)
    ]

    assert 10 <= stopped[0] <= 25
    assert stopped == list(range(stopped[0], 30))  # the last epoch stops nobody


def test_the_reason_names_the_incumbent_and_what_can_be_reached() -> None:
    curve = one_cycle(20, 30, 0.6)

    reason = curve_verdict(points(curve), BEST)

    least = least_log_loss(points(curve))
    assert reason == (
        f"after 20 of 30 epochs: the log loss of {curve[-1]:.4f} will hardly fall below "
        f"{least:.4f}, trial 7 has 0.3000"
    )


def test_a_curve_that_was_better_than_the_incumbent_once_goes_on() -> None:
    curve = points(one_cycle(20, 30, 0.6))

    assert curve_verdict(curve, BEST) is not None
    curve[7] = replace(curve[7], loss=-0.905)
    assert curve_verdict(curve, BEST) is None


def test_a_flat_curve_can_only_gain_what_the_learning_rate_gives() -> None:
    assert least_log_loss(points([1.0] * 15)) == pytest.approx(1 - 0.1 / 2)
    worse = points([1.0, 0.9, 0.8, 1.5], planned=6)
    assert least_log_loss(worse) == pytest.approx(0.8 * (1 - 0.1 / 3))


def test_the_steepest_slope_of_late_counts_and_none_before() -> None:
    late = [1.0] * 10 + [10 / epoch for epoch in range(11, 21)]  # then as one over the epochs
    early = [10.0] * 6 + [1.0] * 14

    assert least_log_loss(points(late)) == pytest.approx(0.5 * (20 / 30) * (1 - 0.1 / 3))
    assert least_log_loss(points(early)) == pytest.approx(1 - 0.1 / 3)


@given(
    losses=st.lists(st.floats(1e-3, 20), min_size=3, max_size=40),
    left=st.integers(1, 40),
)
def test_no_curve_is_said_to_rise(losses: list[float], left: int) -> None:
    least = least_log_loss(points(losses, planned=len(losses) + left))

    assert 0 <= least <= min(losses)


def test_a_curve_is_not_judged_in_the_first_third() -> None:
    curve = points([3.0] * 10, 0.1)

    assert curve_verdict(curve[:-1], BEST) is None
    assert curve_verdict(curve, BEST) is not None


def test_a_curve_is_not_judged_by_what_it_was_with_smaller_images() -> None:
    small = points([0.7 - 0.01 * epoch for epoch in range(10)])
    whole = points([0.6] * 10 + [1.5, 1.1, 0.8] + [0.6] * 16)
    curve = [
        *(replace(point, is_full=False) for point in small),
        *whole[10:],
    ]

    stopped = [done for done in range(1, 30) if curve_verdict(curve[:done], BEST)]

    assert stopped == [*range(stopped[0], 30)]
    assert stopped[0] >= 20


def test_the_rung_speaks_before_the_curve() -> None:
    told = story([0.9, 0.9, 0.9, 0.9])
    mine = told.trial()
    told.finish(0, 0.9, 0.1)
    told.rung(mine, 0.1)
    curve = points([3.0] * 3, 0.1)

    assert (verdict(told.study, mine, curve, 30, JUDGING) or "").startswith("rung 1 (3 epochs)")
    long = points([3.0] * 12, 0.1)
    assert (verdict(told.study, mine, long, 30, JUDGING) or "").startswith("after 12 of 30")
