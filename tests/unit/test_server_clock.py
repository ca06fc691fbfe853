"""The time of Airflow's server, where that of the worker is another."""

from __future__ import annotations

import logging
import socket
from datetime import UTC, datetime

import pytest
from automl_airflow import server_clock
from automl_airflow.server_clock import ServerClock

from tests.operators import api_server


def ahead_s(url: str) -> float:
    return (ServerClock.of(url, lambda: False).now() - datetime.now(UTC)).total_seconds()


@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.parametrize("seconds", [-300, 300])
def test_another_clock_counts_and_is_warned_of(
    seconds: float, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with api_server(status, ahead_s=seconds) as url, caplog.at_level(logging.WARNING):
        assert ahead_s(url) == pytest.approx(seconds, abs=1.5)

    assert "s off the API server's" in caplog.text


def test_a_clock_that_agrees_is_taken_with_its_fractions(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with api_server(ahead_s=1.0) as url, caplog.at_level(logging.WARNING):
        assert ahead_s(url) == pytest.approx(0, abs=0.2)

    assert caplog.text == ""


def test_a_server_that_is_away_has_this_clock() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/execution/"
        assert ahead_s(url) == pytest.approx(0, abs=0.2)


@pytest.mark.parametrize(
    ("patience_s", "is_stopped", "expected_s"),
    [(60.0, False, 300), (0.1, False, 0), (60.0, True, 0)],
)
def test_a_server_that_is_started_again_is_waited_for_unless_the_task_is_stopped(
    monkeypatch: pytest.MonkeyPatch, patience_s: float, is_stopped: object, expected_s: float
) -> None:
    monkeypatch.setattr(server_clock, "_PATIENCE_S", patience_s)
    monkeypatch.setattr(server_clock, "_AGAIN_S", 0.05)
    with api_server(ahead_s=300) as url:
        clock = ServerClock.of(url, lambda: bool(is_stopped))
        answers = [None] * 10  # it is away for half a second

        def told(asked: str) -> datetime | None:
            return answers.pop() if answers else server_time(asked)

        server_time = server_clock._told
        monkeypatch.setattr(server_clock, "_told", told)
        ahead = (clock.now() - datetime.now(UTC)).total_seconds()

    assert ahead == pytest.approx(expected_s, abs=1.5)
