"""Labels of mapped task instances: from the worker's process to Airflow, without holding it up."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from automl.domain.trial import Measurement, Outcome, Trial, TrialState
from automl.machine.labels import RESULT_FD_VARIABLE, say_label, split_labels
from automl.runs.worker import label_of

os.environ.setdefault("AIRFLOW_HOME", "/tmp/automl-test-airflow")  # noqa: S108
pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")


def trial(number: int, score: float | None) -> Trial:
    measured = Measurement(score=score, loss=None if score is None else -score, weights="w")
    outcome = None if score is None else Outcome.COMPLETED
    return Trial(
        number, "r", 0, "s", state=TrialState.FINISHED, outcome=outcome, measurement=measured
    )


def test_a_label_names_the_trial_and_the_best_score_so_far() -> None:
    assert label_of(3, [trial(0, 0.5), trial(1, 0.91239), trial(2, None)]) == (
        "trial 3 · best 0.9124"
    )
    assert label_of(0, []) == "trial 0"


def test_labels_travel_before_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    read_fd, write_fd = os.pipe()
    monkeypatch.setenv(RESULT_FD_VARIABLE, str(write_fd))
    say_label("trial 3 · best 0.5")
    say_label("x" * 1000)
    os.write(write_fd, json.dumps({"result": {"label": "trials 3"}}).encode())
    os.close(write_fd)

    labels, rest = split_labels(os.read(read_fd, 1 << 16))
    os.close(read_fd)

    assert labels == ["trial 3 · best 0.5", "x" * 200]
    assert json.loads(rest) == {"result": {"label": "trials 3"}}


def test_without_a_supervisor_or_after_its_end_nobody_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(RESULT_FD_VARIABLE, raising=False)
    say_label("trial 3")
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    monkeypatch.setenv(RESULT_FD_VARIABLE, str(write_fd))
    say_label("trial 3")
    os.close(write_fd)
    say_label("trial 3")


class Supervisor:
    """The task's link to its supervisor: slow, and broken once."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.free = threading.Event()

    def send(self, msg: Any) -> None:
        self.free.wait(10)
        self.shown.append(msg.rendered_map_index)
        if len(self.shown) == 1:
            raise OSError("the API server is away")


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    from airflow.sdk.execution_time import comms, task_runner

    link = Supervisor()
    monkeypatch.setattr(comms, "CommsDecoder", Supervisor)  # the kind that threads may share
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", link, raising=False)
    yield link
    link.free.set()


def test_a_slow_or_broken_api_server_holds_no_task_up_and_sees_the_last_label(
    supervisor: Supervisor,
) -> None:
    from automl_airflow.label import LiveLabel

    show = LiveLabel()
    started_s = time.monotonic()
    for number in range(100):
        show(f"trial {number}")
    assert time.monotonic() - started_s < 5
    supervisor.free.set()

    deadline_s = time.monotonic() + 10
    while supervisor.shown[-1:] != ["trial 99"] and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert supervisor.shown[-1] == "trial 99"
    assert len(supervisor.shown) <= 3


def test_no_label_overtakes_the_one_that_the_task_ends_with(supervisor: Supervisor) -> None:
    from automl_airflow.label import LiveLabel

    show = LiveLabel()
    show("trial 1")
    while show._next is not None:  # it is under way
        time.sleep(0.01)
    show("trial 2")
    timer = threading.Timer(0.2, supervisor.free.set)
    timer.start()
    show.close()
    supervisor.shown.append("the end")
    time.sleep(0.3)
    timer.join()

    assert supervisor.shown == ["trial 1", "the end"]


def test_a_link_that_threads_may_not_share_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.execution_time import task_runner
    from automl_airflow.label import LiveLabel

    sent: list[Any] = []
    link = SimpleNamespace(send=sent.append)
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", link, raising=False)
    show = LiveLabel()
    show("trial 1")
    show.close()

    assert sent == []
