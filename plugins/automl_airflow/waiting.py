"""Waiting without a slot: when a task is tried again, and when it is given up.

A task that waits raises `AirflowRescheduleException`: Airflow gives its slot to others, queues it
again at the time that it names, and counts no retry. What the task has waited for lies in Airflow's
store of task states, which survives that. It also survives a clear, so the state names the task
instance: a cleared task, and a retry, get a new instance and begin anew.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowRescheduleException,
)

from automl.errors import AutoMLError, StudyBusyError
from automl_airflow.pools import execution_api_url, is_awaited
from automl_airflow.server_clock import ServerClock

if TYPE_CHECKING:
    from airflow.sdk import Context

SHORTEST_S = 5.0  # less, and the scheduler may run an instance twice; see the design page
_LOOPS = 1.5  # of the scheduler at least: else it may see a task due before it sees it finished
LONGEST_S = 300.0
PATIENCE_S = 3600.0  # of continuous trouble; a queue for a slot is none
MAX_DEATHS = 3  # of the process of a step; those of workers are counted by trial, in the log
_JITTER = 0.25
_TURN = 1.5  # slices: two studies that take turns wait for one, and somewhat
_KEY = "automl_waiting"


def delay_s(count: int, seed: str) -> float:
    """Return how long to wait before the next try: longer each time, and not all at once.

    Args:
        count: how often was waited before.
        seed: what tells tasks apart that wait for the same.
    """
    base_s = min(SHORTEST_S * 2.0 ** min(count, 16), LONGEST_S / (1 + _JITTER))
    digest = hashlib.sha256(f"{seed}/{count}".encode()).digest()
    return base_s * (1 + _JITTER * int.from_bytes(digest[:4]) / 2**32)


def next_time(schedule: str, timezone: str, after: datetime) -> datetime:
    """Return the first time of a cron expression after `after`, as Airflow's scheduler finds it."""
    from airflow.timetables.base import DataInterval, TimeRestriction
    from airflow.timetables.trigger import CronTriggerTimetable
    from pendulum import instance

    found = CronTriggerTimetable(schedule, timezone=timezone).next_dagrun_info(
        last_automated_data_interval=DataInterval.exact(instance(after)),
        restriction=TimeRestriction(earliest=None, latest=None, catchup=True),
    )
    assert found is not None  # cron never ends
    return found.run_after


class Log(Protocol):
    """Log of a task, as Airflow's operators have it."""

    def info(self, event: Any, *args: Any) -> Any:
        """Write a line."""

    def warning(self, event: Any, *args: Any) -> Any:
        """Write a line that somebody should look at."""


class StateStore(Protocol):
    """Store of a task's state, as Airflow's context has it."""

    def get(self, key: str) -> Any:
        """Return what is stored; None if nothing is."""

    def set(self, key: str, value: Any) -> None:
        """Store a JSON value."""

    def delete(self, key: str) -> None:
        """Forget what is stored."""


@dataclass(frozen=True, slots=True)
class Waited:
    """Waiting of a task instance since it last got on.

    Attributes:
        instance: id of the task instance.
        count: how often it has waited.
        trouble_s: how long trouble has lasted; waiting in Airflow's queues is not in it.
        deaths: how often the step's process has died.
        busy_until: until when a busy study is waited for; "" if it is not.
    """

    instance: str
    count: int = 0
    trouble_s: float = 0.0
    deaths: int = 0
    busy_until: str = ""


def _own_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Server:
    """Airflow's API server, as a waiting task asks it.

    Attributes:
        now: tells the time by the scheduler's clock.
        is_awaited: tells whether another run's task has waited for a slot for so many seconds.
    """

    now: Callable[[], datetime] = _own_now
    is_awaited: Callable[[float], bool] = lambda _: False


class Patience:
    """Patience of one try of a task. Its methods return what the task is to raise.

    Args:
        states: where Airflow keeps the task's state.
        instance: id of the task instance.
        log: the task's log.
        shortest_s: the shortest time to wait.
        server: Airflow's API server.
    """

    def __init__(
        self,
        states: StateStore,
        instance: str,
        log: Log,
        shortest_s: float = SHORTEST_S,
        server: Server = Server(),
    ) -> None:
        self._states, self._instance, self._log = states, instance, log
        self._shortest_s, self._server = shortest_s, server
        self._began_s = time.monotonic()

    @classmethod
    def of(cls, context: Context, log: Log, is_stopped: Callable[[], bool]) -> Patience:
        """Return the patience of the task that has a context; one that is stopped has little."""
        from airflow.sdk.configuration import conf

        loop_s = conf.getfloat("scheduler", "scheduler_idle_sleep_time", fallback=1.0)
        shortest_s = max(SHORTEST_S, _LOOPS * loop_s)
        url, instance = execution_api_url(conf), str(context["ti"].id)
        server = Server(ServerClock.of(url, is_stopped).now, partial(is_awaited, url, instance))
        return cls(context["task_state_store"], instance, log, shortest_s, server)

    def again(self) -> AirflowRescheduleException:
        """Return what gives the slot back for a moment."""
        return self._reschedule(self._shortest_s)

    def after_slice(self, left_s: float | None) -> AirflowRescheduleException:
        """Return what gives the slot back after a slice; for longer where that is somebody's turn.

        Of equal tasks Airflow takes that of the older run first, whoever has waited for longer. A
        run of more workers than there are slots always has one that waits, and would leave none to
        the others. So its workers keep away in turn until those that wait have had their slice.

        Args:
            left_s: of the search, whose end is no later for it; None if that is not known.
        """
        turn_s = _TURN * (time.monotonic() - self._began_s)
        wait_s = turn_s if left_s is None else min(turn_s, left_s)
        if wait_s <= self._shortest_s or not self._server.is_awaited(turn_s):
            return self.again()
        self._log.info("A task of another run has waited for longer: it goes first.")
        return self._reschedule(wait_s)

    def forget(self) -> None:
        """Forget all trouble: the task has got on."""
        self._states.delete(_KEY)

    def after_trouble(self, error: AutoMLError) -> AirflowException:
        """Return what follows an error that may pass."""
        waited = self._waited()
        lasted_s = waited.trouble_s
        if lasted_s:
            lasted_s += time.monotonic() - self._began_s
        if lasted_s >= PATIENCE_S:
            return AirflowFailException(
                f"{error}\nGiven up after {lasted_s / 60:.0f} minutes of continuous trouble."
            )
        wait_s = self._delay_s(waited)
        return self._wait(replace(waited, trouble_s=lasted_s + wait_s), wait_s, error)

    def after_death(self, error: AutoMLError) -> AirflowException:
        """Return what follows the death of the step's process."""
        waited = self._waited()
        waited = replace(waited, deaths=waited.deaths + 1)
        if waited.deaths >= MAX_DEATHS:
            return AirflowFailException(f"{error}\nGiven up: it died {waited.deaths} times.")
        return self._wait(waited, self._delay_s(waited), error)

    def while_busy(
        self, error: StudyBusyError, until: Callable[[datetime], datetime]
    ) -> AirflowException:
        """Return what follows a refusal because another run of the study is open.

        Args:
            error: names the run in the way.
            until: gives the end of a waiting that begins at a time.
        """
        waited, now = self._waited(), self._server.now()
        end = datetime.fromisoformat(waited.busy_until) if waited.busy_until else until(now)
        if now >= end:
            return AirflowFailException(
                f"{error}\nGiven up: it was waited for until {end:%Y-%m-%d %H:%M:%S %Z}."
            )
        waited = replace(waited, trouble_s=0.0, busy_until=end.isoformat())
        left_s = (end - now).total_seconds()
        return self._wait(waited, max(self._shortest_s, min(self._delay_s(waited), left_s)), error)

    def _waited(self) -> Waited:
        """Return what has been waited so far; another instance's state counts for nothing."""
        state = self._states.get(_KEY)
        if isinstance(state, dict) and state.get("instance") == self._instance:
            return Waited(**state)
        return Waited(self._instance)

    def _delay_s(self, waited: Waited) -> float:
        return max(self._shortest_s, delay_s(waited.count, self._instance))

    def _wait(
        self, waited: Waited, wait_s: float, error: AutoMLError
    ) -> AirflowRescheduleException:
        """Store the state, and return what lets the task wait."""
        self._states.set(_KEY, asdict(replace(waited, count=waited.count + 1)))
        self._log.warning("%s\nGives its slot back and tries again in %.0f s.", error, wait_s)
        return self._reschedule(wait_s)

    def _reschedule(self, wait_s: float) -> AirflowRescheduleException:
        return AirflowRescheduleException(self._server.now() + timedelta(seconds=wait_s))  # type: ignore[no-untyped-call]
