"""The time of Airflow's server, where that of the worker is another."""

from __future__ import annotations

import logging
import socket
from datetime import UTC, datetime

import pytest
from automl_airflow.server_clock import server_now

from tests.operators import api_server


def ahead_s(url: str) -> float:
    return (server_now(url) - datetime.now(UTC)).total_seconds()


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
