from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from automl.domain.specification import SearchSection
from automl.search.budget import full_seconds, is_short_budget, time_budget


@pytest.mark.parametrize(
    ("limit_s", "workers", "expected"), [(600, 1, 100), (600, 2, 200), (600, 64, 240)]
)
def test_a_training_takes_a_share_of_the_search(
    limit_s: float, workers: int, expected: float
) -> None:
    search = SearchSection(workers=workers)

    assert full_seconds(limit_s, search, enough_s=expected) == expected
    assert time_budget(limit_s, search, None, 590).seconds() == expected


def test_the_last_training_is_sized_to_what_is_left() -> None:
    search = SearchSection(workers=2)

    assert time_budget(600, search, None, 53).seconds() == 50
    assert time_budget(600, search, None, 2).seconds() == 1
    assert time_budget(600, search, None, 53).seconds(spent_s=30) == 80
    assert time_budget(600, search, None, 500).seconds(spent_s=30) == 200


def test_a_search_of_so_many_trials_gives_them_any_time() -> None:
    search = SearchSection(workers=2, max_trials=5)

    assert full_seconds(800, search, enough_s=10) is None
    assert time_budget(800, search, None, 10).seconds() is None


@pytest.mark.parametrize(
    ("enough_s", "workers", "expected"),
    [(201, 2, 201), (350, 2, 350), (9999, 2, 480), (9999, 64, 480), (101, 1, 101), (9999, 1, 240)],
)
def test_a_short_budget_search_trains_its_seeds_for_as_long_as_they_need(
    enough_s: float, workers: int, expected: float
) -> None:
    search = SearchSection(workers=workers, time_limit=timedelta(seconds=600))
    trial_ms = round(1000 * expected)

    assert full_seconds(600, search, enough_s) == expected
    assert is_short_budget(search, trial_ms)
    assert time_budget(600, search, trial_ms, 590).seconds() == expected


def test_a_search_with_time_for_its_trainings_has_no_short_budget() -> None:
    search = SearchSection(workers=2, time_limit=timedelta(seconds=601))
    share_s = full_seconds(601, search, enough_s=1)

    assert share_s is not None
    assert not is_short_budget(search, round(1000 * share_s))
    assert not is_short_budget(search, None)  # as older versions recorded it
    assert not is_short_budget(SearchSection(max_trials=5), None)


def test_a_track_may_give_some_trainings_less() -> None:
    search = SearchSection(workers=2, time_limit=timedelta(seconds=600))
    budget = time_budget(600, search, 480_000, 590)

    assert budget.seconds() == 480
    assert replace(budget, full_s=90.5).seconds() == 90.5
    assert replace(budget, full_s=90.5, left_s=43).seconds() == 40
