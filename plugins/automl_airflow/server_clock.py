"""Clock of Airflow's server, by which the scheduler tells when a waiting task is due.

Airflow takes the time of a task's next turn from the worker. One whose clock is five minutes ahead
would wait for five minutes each time; one that is behind would be due before the scheduler has seen
it wait, which runs it twice.
"""

from __future__ import annotations

import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_TIMEOUT_S = 5.0
_AGREE = timedelta(seconds=3)  # an answer has no fractions of seconds, and takes some time
_FRACTION = timedelta(seconds=1)
_PATIENCE_S, _AGAIN_S = 60.0, 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerClock:
    """Clock of the server that a task has reached.

    A server that is started again is waited for: a task that names the time of its next turn while
    the server is away is due when it can tell, and may be run before the scheduler has heard of its
    end, which uses up a try.

    Attributes:
        execution_api_url: where tasks reach the API server.
        patience_s: how long it is waited for.
        is_stopped: tells that there is no time for it: Airflow kills what does not end in seconds.
    """

    execution_api_url: str
    patience_s: float
    is_stopped: Callable[[], bool]

    @classmethod
    def of(cls, execution_api_url: str, is_stopped: Callable[[], bool]) -> ServerClock:
        """Return the clock of a server, which is waited for if it answers now."""
        is_there = _told(_health(execution_api_url)) is not None
        return cls(execution_api_url, _PATIENCE_S if is_there else 0.0, is_stopped)

    def now(self) -> datetime:
        """Return the time, as the server has it if its clock is not this machine's.

        A server that does not answer is taken to have this machine's.
        """
        limit_s = time.monotonic() + self.patience_s
        while (told := _told(_health(self.execution_api_url))) is None:
            if time.monotonic() >= limit_s or self.is_stopped():
                return datetime.now(UTC)
            time.sleep(_AGAIN_S)
        own = datetime.now(UTC)
        if abs(told - own) <= _AGREE:
            return own
        log.warning(
            "This worker's clock is %+.0f s off the API server's, which counts: synchronise them.",
            (own - told).total_seconds(),
        )
        return told + _FRACTION


def _health(execution_api_url: str) -> str:
    return f"{execution_api_url.rstrip('/')}/health"


def _told(url: str) -> datetime | None:
    """Return the time of an answer, of a refusal too; None without one."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:  # noqa: S310 - Airflow's own address
            date = response.headers["Date"]
    except urllib.error.HTTPError as error:
        date = error.headers["Date"]
        error.close()
    except (OSError, ValueError):
        return None
    try:
        found = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
