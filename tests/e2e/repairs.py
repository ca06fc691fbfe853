"""A study whose first run loses its worker again and again, and whose later tasks are cleared."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pytest

from automl.domain.layout import StudyKeys, checkpoint_epoch
from automl.domain.study import Run
from automl.domain.trial import Trial, TrialState
from automl.publishing.manifest import Manifest
from automl.runs.context import StoreClock
from automl.steps.specs import PIPELINE
from tests.faulty_proxy import Request, refusal
from tests.nights import FORM_DAG, RUN_WITHIN_S, Night, NightRun, happens

TASKS = tuple(step.task for step in PIPELINE if step.task is not None)
UP_TO_CHOICE = TASKS[: TASKS.index("choose") + 1]


@dataclass(frozen=True)
class Plan:
    """Plan of a night: kills of the worker, and tasks that are cleared.

    Attributes:
        study: the study.
        kills: of the process of the first run's worker.
        failed: tasks to clear, each of a run of its own that has failed.
        finished: tasks to clear of the first run, one after the other.
    """

    study: str
    kills: int
    failed: Sequence[str]
    finished: Sequence[str]


@dataclass(frozen=True)
class Cleared:
    """A run that was over, and what came of clearing one of its tasks.

    Attributes:
        task: the task, cleared with all that comes after it.
        before: the run in the study's log, before that.
        after: the same, when it was over again.
        manifest: of the version that it has then.
        champion: the number of the champion then.
    """

    task: str
    before: Run
    after: Run
    manifest: Manifest
    champion: int


@dataclass(frozen=True)
class Repairs:
    """Outcome of a plan.

    Attributes:
        plan: the plan.
        first: the first run.
        tries: how many tries its tasks had used when it was over for the first time.
        trainings: trial and epoch of its newest checkpoint at each kill.
        manifest: of the first run's version, before anything was cleared.
        failed: the clearing of runs that had failed.
        finished: those of the first run, which had succeeded and whose version was the champion
            until a person promoted a later one.
    """

    plan: Plan
    first: NightRun
    tries: dict[str, int]
    trainings: list[tuple[int, int]]
    manifest: Manifest
    failed: list[Cleared]
    finished: list[Cleared]


def repairs(plan: Plan, night: Night) -> Repairs:
    """Finish a run, let others fail and repair them, then clear tasks of the first one.

    All of them train in the CPUs' pool, since other runs need the trainers' pool to themselves.
    """
    study = plan.study
    form = night.quick_form(study, resources_gpus=0)
    first = night.trigger(FORM_DAG, {**form, "max_trials": 2})
    trainings = _kill_workers(night, first, study, plan.kills)
    tries = first.wait().tries()
    manifest = night.champion(study)
    failed = []
    for task in plan.failed:
        _refuse(night, study, b"winner_chosen" if task in UP_TO_CHOICE else b'"succeeded"')
        run = night.trigger(FORM_DAG, form).wait("failed")
        failed.append(_clear(night, study, run, task))
    registry, now = night.registry(study), StoreClock(night.home.store).now()
    registry.promote(failed[-1].manifest.version, "somebody", "It is newer.", now)
    finished = [_clear(night, study, first, task) for task in plan.finished]
    return Repairs(plan, first, tries, trainings, manifest, failed, finished)


def _kill_workers(night: Night, run: NightRun, study: str, kills: int) -> list[tuple[int, int]]:
    """Kill the run's only worker whenever its training has got further than before."""
    trainings: list[tuple[int, int]] = []
    limit_s = time.monotonic() + RUN_WITHIN_S
    while len(trainings) < kills:
        assert time.monotonic() < limit_s, f"killed at {trainings} only; {run.story()}"
        _kill_once(night, run, study, trainings)
        time.sleep(0.1)
    return trainings


def _kill_once(night: Night, run: NightRun, study: str, trainings: list[tuple[int, int]]) -> None:
    """Kill the worker and note its training, if that has got further than at the last kill.

    The process is halted before the decision, so that its trial cannot end in between.
    """
    last = trainings[-1] if trainings else (-1, 0)
    if (_training(night, study) or last) <= last:
        return
    for process in run.processes_of("run_worker"):
        process.suspend()
        now = _training(night, study)
        if now is not None and now > last:
            process.kill()
            trainings.append(now)
        else:
            process.resume()


def _training(night: Night, study: str) -> tuple[int, int] | None:
    """Return number and newest checkpoint's epoch of the trial that is trained, if it has one."""
    claimed = [t for t in night.study(study).trials if t.state is TrialState.CLAIMED]
    epochs = [(trial.number, _newest_epoch(night, study, trial)) for trial in claimed]
    return next(((number, epoch) for number, epoch in epochs if epoch >= 1), None)


def _newest_epoch(night: Night, study: str, trial: Trial) -> int:
    keys = StudyKeys(study).trial(trial.number, trial.attempt)
    stored = night.home.store.list(keys.checkpoints)
    return max((checkpoint_epoch(entry.key) for entry in stored), default=0)


def _refuse(night: Night, study: str, words: bytes) -> None:
    """Let the store refuse the next write of the log with `words`, as if a right were missing."""

    def is_it(request: Request) -> bool:
        is_written = request.method == "PUT" and f"/studies/{study}/log/" in request.path
        return is_written and words in request.body

    night.line.plan(refusal(403, "AccessDenied"), matches=is_it)


def _clear(night: Night, study: str, run: NightRun, task: str) -> Cleared:
    before = run.in_log(study)
    run.clear(task).wait()
    after = run.in_log(study)
    registry = night.registry(study)
    champion = registry.champion()
    assert after.version is not None
    assert champion is not None
    return Cleared(task, before, after, registry.manifest(after.version), champion.version)


FEW = partial(repairs, Plan("repaired", 3, ("search",), ("final_fit",)))
EACH = partial(repairs, Plan("repaired-each", 5, TASKS, TASKS))
PLANS = (
    pytest.param(FEW, marks=happens(FEW), id="few"),
    pytest.param(EACH, marks=[happens(EACH), pytest.mark.soak], id="each"),
)
