"""A study's record among many writers: what it costs to follow them, and how it lets them pass."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from automl.domain.events import Event, RunOpened, TrialOpened
from automl.domain.study import Study, replay
from automl.errors import StaleWriteError, StorageError
from automl.storage import study_log
from automl.storage.memory import MemoryObjectStore
from automl.storage.study_log import ObjectStudyLog, StudyRecord

AT = datetime(2026, 1, 1, tzinfo=UTC)
CROWD = 64
OPENED = RunOpened(
    at=AT, run="a", deadline=AT + timedelta(hours=1), snapshot="s", spec_hash="h",
    generation_key="k", spec={"name": "digits"}, origin="test",
)  # fmt: skip


def ticket(n: int) -> TrialOpened:
    return TrialOpened(at=AT, n=n, run="a", worker=f"w{n}")


def log_of_a_crowd() -> ObjectStudyLog:
    """Return a log in which many workers have opened a trial, and none has a candidate yet."""
    log = ObjectStudyLog(MemoryObjectStore(), "studies/digits/log")
    log.append([OPENED], expected_version=-1)
    for n in range(CROWD):
        log.append([ticket(n)], expected_version=n)
    return log


class AlwaysLate:
    """A log in which another writer is always quicker."""

    def read(self, after: int = -1) -> Sequence[tuple[int, Event]]:
        return []

    def append(self, events: Sequence[Event], *, expected_version: int) -> int:
        raise StaleWriteError("Version 0 exists.")


def test_reading_the_tickets_of_others_replays_each_event_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replayed, nothing = 0, Study()

    def counted(events: Iterable[tuple[int, Event]], start: Study = nothing) -> Study:
        nonlocal replayed
        rows = list(events)
        replayed += len(rows)
        return replay(rows, start)

    monkeypatch.setattr(study_log, "replay", counted)
    record = StudyRecord(log_of_a_crowd())
    record.refresh()

    assert replayed == CROWD + 1


def test_a_ticket_is_the_study_after_the_trial_was_opened() -> None:
    log = log_of_a_crowd()
    record = StudyRecord(log)
    record.refresh()

    for n in (0, 7, CROWD - 1):
        assert record.ticket(n) == replay(row for row in log.read() if row[0] <= n + 1)


def test_pauses_grow_while_race_after_race_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    clock = iter(range(10_000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock) / 1000)
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(random, "uniform", lambda _, longest: longest)

    with pytest.raises(StorageError, match="too many workers write at once"):
        StudyRecord(AlwaysLate()).commit(lambda _: [OPENED])

    assert pauses[:5] == pytest.approx([0.002] * 5)  # a write takes 1 ms
    assert pauses[5:8] == pytest.approx([0.003, 0.0045, 0.00675])
    assert pauses[-1] == 3.0
    assert pauses[4:] == sorted(pauses[4:])
