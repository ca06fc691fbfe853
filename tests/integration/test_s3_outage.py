"""Searches whose store goes away: a short outage is ridden out, a long one ends in a retry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from automl.domain.documents import JsonValue
from automl.domain.events import SearchEnd, TrialFinished, TrialReleased
from automl.domain.settings import Settings
from automl.domain.specification import StudySpec
from automl.domain.study import Study
from automl.domain.trial import Outcome
from automl.errors import StorageError
from automl.machine.signals import StopSignal
from automl.runs import opening
from automl.runs.context import StepContext
from automl.runs.run_lease import RunLease
from automl.runs.worker import run_worker
from automl.steps import prepare
from automl.steps.local_run import search
from automl.steps.study_file import study_spec
from automl.storage.home import ObjectHome
from automl.storage.leases import Leases
from automl.storage.s3.objects import S3ObjectStore
from automl.storage.s3.retries import S3Limits
from tests.digits import write_digits
from tests.faulty_proxy import FaultyProxy
from tests.quiet import Quiet

TTL_S = 4.0
LIMIT_S = 1.0


class QuickHome(ObjectHome):
    """A home whose trials' leases live for seconds."""

    def leases(self, study: str, ttl_s: float = TTL_S) -> Leases:
        """Return the leases of the study called `study`."""
        return super().leases(study, ttl_s)


class Lines(Quiet):
    """Keeps what workers say and shows nothing."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def study_document(folder: Path, **search: object) -> dict[str, object]:
    source = write_digits(folder / "rows.npz", 200)
    return {
        "name": "digits",
        "task": "image_classification",
        "data": {"source": str(source)},
        "search": {"time_limit": "10m", "max_trials": 2, "workers": 1, **search},
        "final_fit": {"time_limit": "30s"},
    }


@dataclass(frozen=True)
class Run:
    """One run of a study behind the proxy, opened and with its data prepared."""

    uri: str
    spec: StudySpec

    def context(self, limits: S3Limits) -> StepContext:
        bucket, _, prefix = self.uri.removeprefix("s3://").partition("/")
        home = QuickHome(S3ObjectStore(bucket, prefix, limits))
        return StepContext.open(Settings(self.uri), self.spec, "one", "test", home)

    def open(self) -> Run:
        context = self.context(S3Limits())
        opening.open_run(context, prepare.prepare(context, Lines().items).id)
        return self

    def work(self, limits: S3Limits) -> dict[str, JsonValue]:
        """Do what the step `run_worker` does, and return its result."""
        context = self.context(limits)
        with RunLease(context):
            return run_worker(context, 0, StopSignal()).to_json()


@contextmanager
def outage_while_training(
    proxy: FaultyProxy, seconds: float | None = None
) -> Iterator[threading.Event]:
    """Let the server be away once a trial has stored its second checkpoint; yield what is set.

    It is back after `seconds`, or at the end of the block.
    """
    over, began = threading.Event(), threading.Event()

    def watch() -> None:
        while proxy.count("PUT", "checkpoint-") < 2:
            if over.wait(0.02):
                return
        began.set()
        proxy.switch_off()
        if seconds is None:
            over.wait()
        else:
            time.sleep(seconds)
        proxy.switch_on()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield began
    finally:
        over.set()
        thread.join()


def check_nothing_lost(context: StepContext, trials: int) -> Study:
    """Check that every trial ended once, completely, and that the search knows its end."""
    study = context.record.refresh()
    assert len(study.trials) == trials
    assert {trial.outcome for trial in study.trials} <= {Outcome.COMPLETED, Outcome.PRUNED}
    events = [event for _, event in context.record.log.read()]
    ends = Counter(event.n for event in events if isinstance(event, TrialFinished))
    assert ends == dict.fromkeys(range(trials), 1)
    identities = {trial.candidate.identity for trial in study.trials if trial.candidate}
    assert len(identities) == trials
    assert study.runs[-1].search_end is SearchEnd.MAX_TRIALS
    return study


def test_a_worker_that_loses_its_lease_in_an_outage_resumes_the_trial_itself(
    tmp_path: Path, s3_store_uri: str, faulty_s3: FaultyProxy
) -> None:
    home = f"{s3_store_uri}/mein Zuhause/ü+%20"
    run = Run(home, study_spec(study_document(tmp_path))).open()

    with outage_while_training(faulty_s3, seconds=2 * TTL_S) as began:
        result = run.work(S3Limits(total_s=60.0))

    assert began.is_set()
    assert (result["state"], result["trials"]) == ("search_ended", [0, 1])
    context = run.context(S3Limits())
    study = check_nothing_lost(context, trials=2)
    assert study.trials[0].attempt >= 2  # more where a busy machine renews a lease too late
    assert study.trials[0].measurement.resumed_at >= 1
    released = [event for _, event in context.record.log.read() if isinstance(event, TrialReleased)]
    assert released[0].n == 0
    assert {event.reason for event in released} == {"its lease was lost"}


def test_an_outage_beyond_the_limit_ends_the_step_and_its_retry_goes_on(
    tmp_path: Path, s3_store_uri: str, faulty_s3: FaultyProxy
) -> None:
    run = Run(s3_store_uri, study_spec(study_document(tmp_path))).open()

    with outage_while_training(faulty_s3, seconds=8 * LIMIT_S) as began:
        with pytest.raises(StorageError, match=r"cannot be reached: \w+ of .* failed") as caught:
            run.work(S3Limits(total_s=LIMIT_S))
        assert began.is_set()
    assert caught.value.retryable
    assert caught.value.exit_code == 4

    run.work(S3Limits())

    study = check_nothing_lost(run.context(S3Limits()), trials=2)
    assert study.trials[0].attempt >= 2
    assert study.trials[0].measurement.resumed_at >= 1


@pytest.mark.soak
def test_two_workers_ride_out_a_minute(
    tmp_path: Path, s3_store_uri: str, faulty_s3: FaultyProxy
) -> None:
    spec = study_spec(study_document(tmp_path, workers=2, max_trials=6))
    context = StepContext.open(Settings(s3_store_uri), spec, "one", "test")
    progress = Lines()
    snapshot = prepare.prepare(context, progress.items).id
    with RunLease(context), outage_while_training(faulty_s3, seconds=60.0) as began:
        search(context, opening.open_run(context, snapshot), progress)

    assert began.is_set()
    assert [line for line in progress.lines if "gave up" in line or "killed" in line] == []
    check_nothing_lost(context, trials=6)


@pytest.mark.soak
def test_the_command_line_exits_with_4_after_a_long_outage_and_the_next_run_goes_on(
    tmp_path: Path, s3_store_uri: str, faulty_s3: FaultyProxy
) -> None:
    study_file = tmp_path / "digits.yaml"
    study_file.write_text(json.dumps(study_document(tmp_path, workers=2, max_trials=4)))
    command = [str(Path(sys.executable).parent / "automl"), "run", str(study_file)]
    environment = {**os.environ, "AUTOML_HOME": s3_store_uri}

    with outage_while_training(faulty_s3) as began:
        first = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
    assert began.is_set()
    assert first.returncode == 4, first.stderr
    assert "cannot be reached" in first.stderr
    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert second.returncode == 0, second.stderr
    context = StepContext.open(Settings(s3_store_uri), study_spec(study_document(tmp_path)), "", "")
    study = context.record.refresh()
    events = [event for _, event in context.record.log.read()]
    ends = Counter(event.n for event in events if isinstance(event, TrialFinished))
    assert ends == dict.fromkeys(range(len(study.trials)), 1)
    assert {trial.outcome for trial in study.trials} <= {Outcome.COMPLETED, Outcome.PRUNED}
