"""Clock of Airflow's server, by which the scheduler tells when a waiting task is due.

Airflow takes the time of a task's next turn from the worker. One whose clock is five minutes ahead
would wait for five minutes each time; one that is behind would be due before the scheduler has seen
it wait, which runs it twice.
"""

from __future__ import annotations

import logging
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_TIMEOUT_S = 5.0
_AGREE = timedelta(seconds=3)  # an answer has no fractions of seconds, and takes some time
_FRACTION = timedelta(seconds=1)

log = logging.getLogger(__name__)


def server_now(execution_api_url: str) -> datetime:
    """Return the time, as the server has it if its clock is not this machine's.

    A server that does not answer is taken to have this machine's.

    Args:
        execution_api_url: where tasks reach the API server.
    """
    told = _told(f"{execution_api_url.rstrip('/')}/health")
    own = datetime.now(UTC)
    if told is None or abs(told - own) <= _AGREE:
        return own
    log.warning(
        "This worker's clock is %+.0f s off the API server's, which counts: synchronise them.",
        (own - told).total_seconds(),
    )
    return told + _FRACTION


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
