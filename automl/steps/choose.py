"""The step `choose`: the log decides which trial wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from automl.domain.events import Event, SearchEnd, WinnerChosen
from automl.domain.study import Run, Study
from automl.domain.trial import Trial
from automl.errors import Problem, SearchError
from automl.steps.context import StepContext
from automl.steps.continuation import continued_trial
from automl.steps.proposals import recorded_search, search_space
from automl.steps.trials import end_search

_TOO_LARGE = "beyond search.limits"


@dataclass(frozen=True, slots=True)
class Winner:
    """The chosen trial."""

    trial: int
    score: float
    error: float | None

    def to_json(self) -> dict[str, object]:
        """Return the step's result."""
        return {"trial": self.trial, "score": self.score, "error": self.error}


def choose(context: StepContext) -> Winner:
    """Return the run's winner: the trial with the least loss, the cheaper one of equals.

    Trials of earlier runs take part if they are comparable and within the limits of this one. The
    winner of a run that continues a version is that version's trial, whatever it was measured on. A
    second call returns the same winner.

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
        if run.continues is not None:
            best = continued_trial(study, run.continues)
        else:
            best = _best(context, study, run)
        assert best.loss is not None
        return (
            WinnerChosen(at=context.clock.now(), run=run.name, trial=best.number, loss=best.loss),
        )

    study = context.record.commit(decide)
    run = context.run_in(study)
    assert run.winner is not None
    measurement = study.trials[run.winner].measurement
    assert measurement.score is not None
    return Winner(run.winner, measurement.score, measurement.error)


def _best(context: StepContext, study: Study, run: Run) -> Trial:
    able = _within_limits(run, study.comparable(run))
    best = best_trial(able)
    if best is not None:
        return best
    raise SearchError(
        f"No trial of study {context.spec.name} has completed.",
        "see the causes below; a longer search.time_limit helps where trials timed out",
        [
            Problem(f"trial {t.number}", _fate(t) if t in able else _TOO_LARGE)
            for t in study.comparable(run)
        ],
    )


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial that would win among `trials`, or None if none can."""
    able = [trial for trial in trials if trial.can_win]

    def rank(trial: Trial) -> tuple[float, int, int]:
        assert trial.loss is not None
        return trial.loss, trial.measurement.flops or 0, trial.number

    return min(able, key=rank, default=None)


def _within_limits(run: Run, trials: Sequence[Trial]) -> Sequence[Trial]:
    """Return the trials that the run might have proposed itself: earlier ones had other limits."""
    limits = recorded_search(run).limits
    if not limits.model_dump(exclude_none=True):
        return trials
    space = search_space(run)
    return [t for t in trials if t.candidate is not None and space.contains(t.candidate)]


def _fate(trial: Trial) -> str:
    if trial.outcome is None:
        return f"unfinished ({trial.state})"
    return f"{trial.outcome}: {trial.cause}" if trial.cause else str(trial.outcome)
