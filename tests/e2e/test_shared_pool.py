"""Two runs at once under a real Airflow: the slices make them share the pool of the trainers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from automl_airflow.waiting import SHORTEST_S

from automl.domain.events import (
    Event,
    RunOpened,
    SearchEnd,
    SearchEnded,
    TrialClaimed,
    TrialFinished,
    TrialReleased,
)
from tests.e2e.conftest import Scenarios
from tests.e2e.test_failed_run import two_failures
from tests.e2e.test_study_files import edited
from tests.e2e.test_team_dag import greenhouse
from tests.nights import FORM_DAG, RUN_WITHIN_S, Night, happens

NAMES, WORKERS = ("shared-a", "shared-b"), 2
LIMIT_S, SLICE_S = 100.0, 12.0
SLOTS = 2  # of the pool, as a local Airflow makes it
SHARE = 0.3  # of the training that happens while both search, at least
START_S = 30.0  # from a free slot to the first claim, on a machine that does much besides


@dataclass(frozen=True)
class Span:
    """One attempt at a trial: the worker held a pool slot from `start_s` to `end_s`."""

    worker: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Search:
    """What the log of a run's search tells; times in seconds since some common moment."""

    opened_s: float
    ended_s: float
    end: SearchEnd
    spans: list[Span]

    def within(self, start_s: float, end_s: float) -> list[Span]:
        """Return the parts of the spans between two moments."""
        cut = [Span(s.worker, max(s.start_s, start_s), min(s.end_s, end_s)) for s in self.spans]
        return [span for span in cut if span.start_s < span.end_s]

    def waits_s(self, start_s: float, end_s: float) -> list[float]:
        """Return the waits of all workers between two moments, that for the first turn too."""
        waits = []
        for worker in {span.worker for span in self.spans}:
            free_s = start_s
            for span in self.within(start_s, end_s):
                if span.worker == worker:
                    waits.append(span.start_s - free_s)
                    free_s = span.end_s
        return waits


@dataclass(frozen=True)
class SharedPool:
    """Two finished runs that searched at the same time: their searches and task instances."""

    searches: tuple[Search, Search]
    tasks: list[dict[str, Any]]

    @property
    def both_s(self) -> tuple[float, float]:
        """From when until when both runs searched."""
        opened = max(search.opened_s for search in self.searches)
        return opened, min(search.opened_s + LIMIT_S for search in self.searches)


def two_searches(night: Night) -> SharedPool:
    """Let two runs search at once, which have the pool of the trainers for themselves."""
    limits = {"time_limit": f"{LIMIT_S:.0f}s", "slice": f"{SLICE_S:.0f}s"}
    more = {**limits, "workers": WORKERS, "max_trials": 1000}
    runs = [night.trigger(FORM_DAG, night.quick_form(name, **more)) for name in NAMES]
    tasks = [task for run in runs for task in run.wait(within_s=LIMIT_S + RUN_WITHIN_S).tasks()]
    first, second = (
        read_search(event for _, event in night.home.study_log(name).read()) for name in NAMES
    )
    return SharedPool((first, second), tasks)


pytestmark = happens(two_searches, after=[edited, two_failures, greenhouse])


@pytest.fixture(scope="module")
def shared(scenarios: Scenarios) -> SharedPool:
    return scenarios.outcome(two_searches)


def read_search(events: Iterable[Event]) -> Search:
    """Return the search of a log of one run."""
    claims: dict[tuple[int, int], TrialClaimed] = {}
    spans = []
    for event in events:
        match event:
            case RunOpened():
                opened = event
            case SearchEnded():
                ended = event
            case TrialClaimed():
                claims[event.n, event.attempt] = event
            case TrialReleased() | TrialFinished():
                claim = claims[event.n, event.attempt]
                spans.append(Span(claim.worker, _seconds(claim.at), _seconds(event.at)))
    spans.sort(key=lambda span: span.start_s)
    return Search(_seconds(opened.at), _seconds(ended.at), ended.reason, spans)


def _seconds(at: datetime) -> float:
    return at.timestamp()


def test_no_retry_is_used_up(shared: SharedPool) -> None:
    assert {task["state"] for task in shared.tasks} == {"success"}
    assert {task["try_number"] for task in shared.tasks} == {1}
    searching = [task for task in shared.tasks if task["task_id"] == "search"]
    assert len(searching) == len(NAMES) * WORKERS


def test_both_runs_publish_a_champion(shared: SharedPool, night: Night) -> None:
    assert len(shared.searches) == len(NAMES)
    for name in NAMES:
        assert night.champion(name).metrics["accuracy"].value > 0.2  # a guess has 0.1


def test_the_pool_is_never_overdrawn(shared: SharedPool) -> None:
    spans = [span for search in shared.searches for span in search.spans]

    at_once = [sum(s.start_s <= span.start_s < s.end_s for s in spans) for span in spans]
    assert max(at_once) == SLOTS


def test_each_run_trains_for_a_fair_share_of_the_time(shared: SharedPool) -> None:
    held_s = [
        sum(span.end_s - span.start_s for span in search.within(*shared.both_s))
        for search in shared.searches
    ]

    assert min(held_s) / sum(held_s) >= SHARE, held_s


def test_no_run_waits_for_more_than_two_slices(shared: SharedPool) -> None:
    waits_s = [wait for search in shared.searches for wait in search.waits_s(*shared.both_s)]

    assert max(waits_s) <= 2 * (SLICE_S + START_S) + SHORTEST_S
    turns = sum(wait >= SHORTEST_S for wait in waits_s)
    assert turns >= len(NAMES) * WORKERS, "the slots did not change hands"


def test_searches_end_at_their_deadlines(shared: SharedPool) -> None:
    for search in shared.searches:
        assert search.end is SearchEnd.DEADLINE
        late = timedelta(seconds=search.ended_s - search.opened_s - LIMIT_S)
        # a run that holds no slot at its deadline says so when it gets the next one
        assert timedelta(seconds=-10) <= late <= timedelta(seconds=SLICE_S + 2 * START_S)
