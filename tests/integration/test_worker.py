"""Workers as processes: kills and attempts that come too late."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest

from automl.domain.events import TrialFinished
from automl.domain.settings import Settings
from automl.domain.specification import StudySpec
from automl.domain.trial import Measurement, Outcome, TrialState
from automl.runs import opening
from automl.runs.context import StepContext
from automl.runs.trials import Claim, TrialSource
from automl.steps.local_run import run_study
from automl.tracks.image.space import NetworkMorphismSpace
from tests.digits import study_of_digits
from tests.quiet import Quiet


class KillAfterCheckpoint(Quiet):
    """Kills the worker once, when it has finished its second epoch and so stored its first."""

    def __init__(self) -> None:
        self.killed: list[int] = []
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)
        if "epoch 1:" not in text or self.killed:
            return
        for child in psutil.Process().children():
            if "run_worker" in child.cmdline():
                self.killed.append(child.pid)
                os.kill(child.pid, signal.SIGKILL)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(str(tmp_path / "home"))


def opened(settings: Settings, spec: StudySpec, run: str = "one") -> StepContext:
    return StepContext.open(settings, spec, run, "test")


def test_a_killed_worker_costs_no_trial(tmp_path: Path, settings: Settings) -> None:
    spec, killer = study_of_digits(tmp_path), KillAfterCheckpoint()

    document = run_study(settings, spec, killer)

    assert len(killer.killed) == 1
    assert "worker 0 was killed by signal 9; trials [0] go on" in killer.lines
    assert document["state"] == "succeeded"
    context = opened(settings, spec)
    first, second = context.record.refresh().trials
    assert first.attempt >= 2
    assert first.measurement.resumed_at >= 1
    assert first.outcome is Outcome.COMPLETED
    assert second.outcome in {Outcome.COMPLETED, Outcome.PRUNED}  # the wide seed may be far ahead
    log = [event for _, event in context.record.log.read()]
    ends = Counter(event.n for event in log if isinstance(event, TrialFinished))
    assert ends == {0: 1, 1: 1}


def taken(context: StepContext, worker: str) -> Claim:
    claim = TrialSource(context, worker, lambda *_: NetworkMorphismSpace(8, 10)).take()
    assert claim is not None
    return claim


def finished(context: StepContext, claim: Claim, score: float) -> TrialFinished:
    return TrialFinished(
        at=context.clock.now(),
        n=claim.trial.number,
        attempt=claim.trial.attempt,
        run=context.run,
        outcome=Outcome.COMPLETED,
        measurement=Measurement(score=score, loss=-score),
    )


def test_the_result_of_a_stale_attempt_is_ignored(tmp_path: Path, settings: Settings) -> None:
    spec = study_of_digits(tmp_path)
    zombie, heir = opened(settings, spec), opened(settings, spec)
    opening.open_run(zombie, "snapshot")
    old = taken(zombie, "one/0")
    old.lease.release()  # as if it had run out
    new = taken(heir, "one/1")
    assert (new.trial.number, old.trial.attempt, new.trial.attempt) == (0, 1, 2)

    late = finished(zombie, old, 0.1)
    (trial,) = zombie.record.commit(lambda _: [late] if not _has(zombie, late) else ()).trials
    assert trial.state is TrialState.CLAIMED
    (trial,) = heir.record.commit(
        lambda study: () if study.trials[0].outcome else [finished(heir, new, 0.9)]
    ).trials

    assert (trial.outcome, trial.measurement.score) == (Outcome.COMPLETED, 0.9)
    assert opened(settings, spec).record.refresh().trials == (trial,)
    new.lease.release()


def _has(context: StepContext, event: TrialFinished) -> bool:
    return any(known == event for _, known in context.record.log.read())
