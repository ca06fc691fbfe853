from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from automl.domain.specification import SearchSection
from automl.domain.study import Run
from automl.steps.budget import full_seconds, trial_seconds

START = datetime(2026, 1, 1, tzinfo=UTC)


def run(seconds: float) -> Run:
    return Run("r", START, START + timedelta(seconds=seconds), "snapshot", 0, {}, "cli")


@pytest.mark.parametrize(
    ("limit_s", "workers", "expected"), [(600, 1, 100), (600, 2, 200), (600, 64, 240)]
)
def test_a_training_takes_a_share_of_the_search(
    limit_s: float, workers: int, expected: float
) -> None:
    search = SearchSection(workers=workers)

    assert full_seconds(limit_s, search) == expected
    assert trial_seconds(run(limit_s), search, 590) == expected


def test_the_last_training_is_sized_to_what_is_left() -> None:
    search = SearchSection(workers=2)

    assert trial_seconds(run(600), search, 53) == 50
    assert trial_seconds(run(600), search, 2) == 1
    assert trial_seconds(run(600), search, 53, spent_s=30) == 80
    assert trial_seconds(run(600), search, 500, spent_s=30) == 200


def test_a_search_of_so_many_trials_gives_them_any_time() -> None:
    search = SearchSection(workers=2, max_trials=5)

    assert full_seconds(800, search) is None
    assert trial_seconds(run(800), search, 10) is None
