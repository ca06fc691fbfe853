from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from automl.domain.facts import Origin, OriginKind, SpaceFacts
from automl.domain.specification import SearchSection
from automl.domain.study import Run
from automl.runs.budget import PRETRAINED_MS, TRIAL_MS, full_seconds, is_hurried, trial_seconds

START = datetime(2026, 1, 1, tzinfo=UTC)


def run(seconds: float, facts: dict[str, int | str] | None = None) -> Run:
    end = START + timedelta(seconds=seconds)
    space = None if facts is None else SpaceFacts.of(facts)
    return Run("r", START, end, "snapshot", 0, {}, Origin(OriginKind.CLI), space=space)


@pytest.mark.parametrize(
    ("limit_s", "workers", "expected"), [(600, 1, 100), (600, 2, 200), (600, 64, 240)]
)
def test_a_training_takes_a_share_of_the_search(
    limit_s: float, workers: int, expected: float
) -> None:
    search = SearchSection(workers=workers)

    assert full_seconds(limit_s, search, enough_s=expected) == expected
    assert trial_seconds(run(limit_s), search, 590) == expected


def test_the_last_training_is_sized_to_what_is_left() -> None:
    search = SearchSection(workers=2)

    assert trial_seconds(run(600), search, 53) == 50
    assert trial_seconds(run(600), search, 2) == 1
    assert trial_seconds(run(600), search, 53, spent_s=30) == 80
    assert trial_seconds(run(600), search, 500, spent_s=30) == 200


def test_a_search_of_so_many_trials_gives_them_any_time() -> None:
    search = SearchSection(workers=2, max_trials=5)

    assert full_seconds(800, search, enough_s=10) is None
    assert trial_seconds(run(800), search, 10) is None


@pytest.mark.parametrize(
    ("enough_s", "workers", "expected"),
    [(201, 2, 201), (350, 2, 350), (9999, 2, 480), (9999, 64, 480), (101, 1, 101), (9999, 1, 240)],
)
def test_a_hurried_search_trains_its_seeds_for_as_long_as_they_need(
    enough_s: float, workers: int, expected: int
) -> None:
    search = SearchSection(workers=workers, time_limit=timedelta(seconds=600))
    facts: dict[str, int | str] = {TRIAL_MS: 1000 * expected}

    assert full_seconds(600, search, enough_s) == expected
    assert is_hurried(search, facts)
    assert trial_seconds(run(600, facts), search, 590) == expected


def test_a_search_with_time_for_its_trainings_is_not_hurried() -> None:
    search = SearchSection(workers=2, time_limit=timedelta(seconds=601))
    share_s = full_seconds(601, search, enough_s=1)

    assert share_s is not None
    assert not is_hurried(search, {TRIAL_MS: round(1000 * share_s)})
    assert not is_hurried(search, {})  # as older versions recorded it
    assert not is_hurried(SearchSection(max_trials=5), {})


def test_descendants_of_the_pretrained_seed_have_their_own_time() -> None:
    search = SearchSection(workers=2, time_limit=timedelta(seconds=600))
    opened = run(600, {TRIAL_MS: 480_000, PRETRAINED_MS: 90_500})

    assert trial_seconds(opened, search, 590) == 480
    assert trial_seconds(opened, search, 590, is_pretrained=True) == 90.5
    assert trial_seconds(opened, search, 43, is_pretrained=True) == 40
    older = run(600, {TRIAL_MS: 480_000})
    assert trial_seconds(older, search, 590, is_pretrained=True) == 480
