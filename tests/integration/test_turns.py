"""Turns of runs that share a pool: who keeps away after a slice, and for how long."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest

from tests.operators import States

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")


@pytest.mark.parametrize(
    ("waited_s", "left_s", "expected_s"),
    [
        (0.0, 600.0, 5.0),  # nobody waits
        (29.0, 600.0, 5.0),  # for little more than a slice
        (31.0, 600.0, 30.0),
        (31.0, None, 30.0),
        (29.0, 12.0, 5.0),
        (31.0, 12.0, 12.0),  # the search ends no later for it
        (31.0, 3.0, 5.0),
    ],
)
def test_a_worker_keeps_away_where_another_run_has_waited_for_longer(
    waited_s: float, left_s: float | None, expected_s: float
) -> None:
    from automl_airflow.waiting import Patience, Server

    server = Server(is_awaited=lambda seconds: waited_s >= seconds > 5)
    patience = Patience(States(), "one", logging.getLogger("task"), server=server)
    patience._began_s -= 20.0  # a slice of so many seconds

    due = patience.after_slice(left_s).reschedule_date

    assert (due - datetime.now(UTC)).total_seconds() == pytest.approx(expected_s, abs=0.5)
