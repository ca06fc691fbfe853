"""The step `choose`: the log decides which trial wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from automl.domain.documents import JsonValue
from automl.domain.events import Event, SearchEnd, WinnerChosen
from automl.domain.study import Run, Study
from automl.runs.choice import Choice, left_behind
from automl.runs.context import StepContext
from automl.runs.trials import end_search
from automl.steps.call import StepCall


@dataclass(frozen=True, slots=True)
class Winner:
    """The chosen trial."""

    trial: int
    score: float
    error: float | None

    def to_json(self) -> dict[str, JsonValue]:
        """Return the step's result."""
        return {"trial": self.trial, "score": self.score, "error": self.error}


def choose(context: StepContext) -> Winner:
    """Return the run's winner: the trial with the least loss, the cheaper one of equals.

    Trials of earlier runs take part if they are comparable and within the limits of this one. One
    that a final fit would have no memory for is passed over for the next; where that is so of all
    of them, the best wins, and its own weights are published if the fit fails. The next best is
    the runner-up. The winner of a run that continues a version is that version's trial, whatever it
    was measured on. A second call returns the same winner.

    Trials that failed workers left behind are given back: a later run on the same data goes on with
    them. What their workers may still come to does not count.

    Raises:
        SearchError: no such trial has a score and weights; the problems are their causes. Or the
            log does not tell of the version.
    """
    context.opened_run()
    end_search(context, SearchEnd.DEADLINE)

    def decide(study: Study) -> Sequence[Event]:
        run = context.run_in(study)
        if run.winner is not None:
            return ()
        return (*left_behind(study, run, context.clock.now()), _chosen(context, study, run))

    study = context.record.commit(decide)
    run = context.run_in(study)
    assert run.winner is not None
    measurement = study.trials[run.winner].measurement
    assert measurement.score is not None
    return Winner(run.winner, measurement.score, measurement.error)


def _chosen(context: StepContext, study: Study, run: Run) -> WinnerChosen:
    asked = context.spec.final_fit.ensemble
    members = 1 if asked == "auto" else asked
    choice = Choice.of(context.spec.name, study, run, members)
    winner, *blended = choice.winners
    assert winner.loss is not None
    return WinnerChosen(
        at=context.clock.now(),
        run=run.name,
        trial=winner.number,
        loss=winner.loss,
        runner_up=None if choice.runner_up is None else choice.runner_up.number,
        passed_over=choice.passed_over,
        blended=tuple(trial.number for trial in blended),
    )


def step(context: StepContext, call: StepCall) -> JsonValue:
    """Return the winner's document."""
    return choose(context).to_json()
