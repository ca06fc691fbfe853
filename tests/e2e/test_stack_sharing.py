"""Studies that share the slots of a stack: who goes first, and when their searches end."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from automl_airflow.pools import NAMES

from automl.domain.events import RunOpened, SearchEnd
from automl.steps.specs import Pool
from tests.e2e.test_shared_pool import Search, read_search
from tests.nights import FORM_DAG, RUN_WITHIN_S, NightRun
from tests.stacks import SLOTS, SOURCE, StackNight, stack_night

pytestmark = pytest.mark.soak

RIVAL_S, RIVALS_WORKERS = 90, 2 * SLOTS  # so that some of them always wait for a slot
LONG_S, SLICE_S = 600.0, 30.0
EARLY_S, LATE_S, TURN_S = 10.0, 6.0, 60.0
HOLDS_S = 8.0  # a slice does not end so shortly before the deadline

log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackNight]:
    with stack_night(tmp_path_factory.mktemp("stack"), {}) as found:
        yield found


def begin(served: StackNight, name: str, limit_s: float, slice_s: float, **more: Any) -> NightRun:
    limits = {"time_limit": f"{limit_s:.0f}s", "slice": f"{slice_s:.0f}s", "max_trials": 1000}
    form = served.night.quick_form(name, **{"source": SOURCE, "workers": SLOTS, **limits, **more})
    return served.night.trigger(FORM_DAG, form)


def search_of(served: StackNight, name: str) -> Search:
    return read_search(event for _, event in served.night.home.study_log(name).read())


def test_priorities_hold(served: StackNight) -> None:
    """A study with more workers than slots takes turns with its like, and goes before lesser ones.

    A study whose workers all wait between two slices leaves the slots to any other: priority only
    decides between tasks that wait for a slot at the same time.
    """
    patient = begin(served, "patient", 2 * RIVAL_S + 150, 10)
    patient.wait_for_task("search", "running")
    for name, priority in (("like", 1), ("urgent", 10)):
        rival = begin(served, name, RIVAL_S, 10, workers=RIVALS_WORKERS, priority=priority)
        rival.wait(within_s=RIVAL_S + RUN_WITHIN_S)
    patient.wait(within_s=LONG_S + RUN_WITHIN_S)
    assert patient.tries()["search"] == 1

    searches = {name: search_of(served, name) for name in ("patient", "like", "urgent")}
    shares = {name: share(searches["patient"], searches[name]) for name in ("like", "urgent")}
    log.info("the patient study's share of the training: %s", shares)
    assert shares["like"] >= 0.25
    assert shares["urgent"] <= 0.15


def share(own: Search, rival: Search) -> float:
    """Return the part of all training that was `own`, while the rival searched."""
    span = (rival.spans[0].start_s, min(rival.ended_s, rival.opened_s + RIVAL_S))
    held_s = [sum(s.end_s - s.start_s for s in each.within(*span)) for each in (own, rival)]
    return held_s[0] / sum(held_s)


def test_searches_of_ten_minutes_end_on_time(served: StackNight) -> None:
    """A search ends at its deadline if a worker has a slot, and else when one gets its turn."""
    names = ("long-a", "long-b")
    for run in [begin(served, name, LONG_S, SLICE_S) for name in names]:
        run.wait(within_s=LONG_S + RUN_WITHIN_S)
        assert run.tries()["search"] == 1
    for name in names:
        ends_on_time(served, name)


def test_a_search_without_a_slot_ends_at_its_next_turn(served: StackNight) -> None:
    """A search ends late where the pool has no slot at its deadline, and slots for all after it."""
    starved, other = [begin(served, name, LONG_S, SLICE_S) for name in ("starved", "other")]
    starved.wait_for_task("search", "running")
    deadline_s = opened_s(served, "starved") + LONG_S
    time.sleep(deadline_s - 2 * SLICE_S - HOLDS_S - time.time())
    with slots(served, 0):  # slices end till then
        time.sleep(deadline_s - time.time())
    for run in (starved, other):
        run.wait(within_s=LONG_S + RUN_WITHIN_S)
    assert not ends_on_time(served, "starved")


def test_one_slot_is_shared_by_studies_of_more_workers(served: StackNight) -> None:
    """None of two studies that always have a worker waiting keeps the only slot for itself."""
    names = ("few-a", "few-b")
    with slots(served, 1):
        for run in [begin(served, name, 2 * RIVAL_S, 10) for name in names]:
            run.wait(within_s=LONG_S + RUN_WITHIN_S)
    searches = [search_of(served, name) for name in names]
    own_share = share(*searches)
    log.info("of the only slot the first study had %.2f", own_share)
    assert 0.25 <= own_share <= 0.75
    assert all(search.ended_s - search.opened_s <= 2 * RIVAL_S + TURN_S for search in searches)


@contextmanager
def slots(served: StackNight, number: int) -> Iterator[None]:
    """Let the pool of trainings have another number of slots for a while."""
    make_pool = served.stack.airflow.client.make_pool
    make_pool(NAMES[Pool.GPU], number, "a test")
    try:
        yield
    finally:
        make_pool(NAMES[Pool.GPU], SLOTS, "a test")


def ends_on_time(served: StackNight, name: str) -> bool:
    """Return whether a worker held a slot at a search's deadline, by which it may end later."""
    search = search_of(served, name)
    deadline_s = search.opened_s + LONG_S
    late_s = search.ended_s - deadline_s
    holds = any(
        span.start_s < deadline_s and span.end_s > deadline_s - HOLDS_S for span in search.spans
    )
    told = "%s: %d spans, a slot is held: %s, late: %.1f s"
    log.info(told, name, len(search.spans), holds, late_s)
    assert search.end is SearchEnd.DEADLINE
    assert -EARLY_S <= late_s <= (LATE_S if holds else TURN_S)
    return holds


def opened_s(served: StackNight, name: str) -> float:
    """Return when a study's run was opened, in seconds of the epoch."""
    events = [event for _, event in served.night.home.study_log(name).read()]
    return next(event.at.timestamp() for event in events if isinstance(event, RunOpened))
