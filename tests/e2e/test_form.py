"""The trigger form under a real Airflow: what is refused, where, and with which words."""

from __future__ import annotations

import pytest
from automl_airflow.rest import AirflowApiError

from tests.e2e.conftest import Scenarios
from tests.nights import FORM_DAG, Night, NightRun, happens


def unknown_key(night: Night) -> NightRun:
    """Return a run whose form had a key that is none."""
    return night.trigger(FORM_DAG, night.quick_form("refused", wokers=3)).wait("failed")


def test_the_api_refuses_a_value_outside_the_form(night: Night) -> None:
    with pytest.raises(AirflowApiError, match=r"400 .*workers"):
        night.trigger(FORM_DAG, night.form("refused", workers=1000))


@happens(unknown_key)
def test_check_names_an_unknown_key_in_its_log(scenarios: Scenarios) -> None:
    run = scenarios.outcome(unknown_key)

    assert (run.states()["check"], run.tries()["check"]) == ("failed", 1)
    assert "The run's conf has unknown keys." in run.log("check")
    assert "wokers: unknown; known here: " in run.log("check")
