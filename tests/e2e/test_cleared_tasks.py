"""Tasks of runs that are over are cleared under a real Airflow, and their runs go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pytest

from automl.domain.events import RunState
from automl.domain.study import Run
from automl.publishing.manifest import Manifest
from automl.runs.context import StoreClock
from automl.steps.specs import PIPELINE
from tests.e2e.conftest import Scenarios
from tests.faulty_proxy import Request, refusal
from tests.nights import FORM_DAG, Night, NightRun, happens

ALL = tuple(step.task for step in PIPELINE if step.task is not None)
UP_TO_CHOICE = ALL[: ALL.index("choose") + 1]


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
    """Runs of one study that were cleared, one after the other.

    Attributes:
        tasks: how many tasks were to be cleared, of each of the two.
        failed: the clearing of runs that had failed.
        finished: those of the study's first run, which had succeeded and whose version was the
            champion until a person promoted a later one.
        manifest: of the first run's version, before that.
    """

    tasks: int
    failed: Sequence[Cleared]
    finished: Sequence[Cleared]
    manifest: Manifest


def repairs(
    study: str, of_failed: Sequence[str], of_finished: Sequence[str], night: Night
) -> Repairs:
    """Finish a run, let others fail and repair them, then clear tasks of the first one."""
    first = night.trigger(FORM_DAG, night.quick_form(study)).wait()
    manifest = night.champion(study)
    failed = []
    for task in of_failed:
        _refuse(night, study, b"winner_chosen" if task in UP_TO_CHOICE else b'"succeeded"')
        run = night.trigger(FORM_DAG, night.quick_form(study)).wait("failed")
        failed.append(_clear(night, study, run, task))
    registry, now = night.registry(study), StoreClock(night.home.store).now()
    registry.promote(failed[-1].manifest.version, "somebody", "It is newer.", now)
    finished = [_clear(night, study, first, task) for task in of_finished]
    return Repairs(len(of_failed), failed, finished, manifest)


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


FEW = partial(repairs, "cleared", ("search",), ("final_fit",))
EACH = partial(repairs, "cleared-each", ALL, ALL)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(FEW, marks=happens(FEW)),
        pytest.param(EACH, marks=[happens(EACH), pytest.mark.soak]),
    ],
    ids=["few", "each"],
)
def repaired(scenarios: Scenarios, request: pytest.FixtureRequest) -> Repairs:
    scenario: Callable[[Night], Repairs] = request.param
    return scenarios.outcome(scenario)


def test_failed_runs_are_reopened_and_publish(repaired: Repairs) -> None:
    assert len(repaired.failed) == repaired.tasks
    for cleared in repaired.failed:
        assert cleared.before.state is RunState.FAILED
        assert "AccessDenied" in cleared.before.cause
        assert (cleared.before.winner is None) == (cleared.task in UP_TO_CHOICE)
        assert cleared.after.state is RunState.SUCCEEDED
        assert cleared.manifest.run == cleared.after.name
        assert cleared.manifest.trial == cleared.after.winner


def test_a_finished_run_keeps_its_version(repaired: Repairs) -> None:
    assert len(repaired.finished) == repaired.tasks
    for cleared in repaired.finished:
        assert cleared.before.state is RunState.SUCCEEDED
        assert cleared.after == cleared.before, cleared.task
        assert cleared.manifest == repaired.manifest, cleared.task


def test_the_champion_never_goes_back_to_an_older_run(repaired: Repairs) -> None:
    newest = repaired.failed[-1].manifest.version

    assert newest > repaired.manifest.version
    assert {cleared.champion for cleared in repaired.finished} == {newest}
