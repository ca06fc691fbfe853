"""The step `choose`: the log decides which trial wins."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from automl.domain.documents import JsonValue
from automl.domain.events import Event, PassedOver, SearchEnd, WinnerChosen
from automl.domain.ranking import ranked_winners
from automl.domain.study import Run, Study
from automl.domain.trial import Trial
from automl.errors import Problem, SearchError
from automl.runs.context import StepContext
from automl.runs.continuation import continued_trial
from automl.runs.memory import memory_shortage
from automl.runs.proposals import memory_of, search_space
from automl.runs.trials import end_search
from automl.steps.call import StepCall

_TOO_LARGE = "beyond search.limits"

log = logging.getLogger(__name__)


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
            chosen = _Choice((continued_trial(study, run.continues),), None, ())
        else:
            asked = context.spec.final_fit.ensemble
            members = 1 if asked == "auto" else asked
            chosen = _Choice.of(study, run, _ranked(context, study, run), members)
        winner, *blended = chosen.winners
        assert winner.loss is not None
        return (
            WinnerChosen(
                at=context.clock.now(),
                run=run.name,
                trial=winner.number,
                loss=winner.loss,
                runner_up=None if chosen.runner_up is None else chosen.runner_up.number,
                passed_over=chosen.passed_over,
                blended=tuple(trial.number for trial in blended),
            ),
        )

    study = context.record.commit(decide)
    run = context.run_in(study)
    assert run.winner is not None
    measurement = study.trials[run.winner].measurement
    assert measurement.score is not None
    return Winner(run.winner, measurement.score, measurement.error)


def _ranked(context: StepContext, study: Study, run: Run) -> list[Trial]:
    able = _within_limits(run, study.comparable(run))
    winners = ranked_winners(able)
    if winners:
        return winners
    raise SearchError(
        f"No trial of study {context.spec.name} has completed.",
        "see the causes below; a longer search.time_limit helps where trials timed out",
        [
            Problem(f"trial {t.number}", _fate(t) if t in able else _TOO_LARGE)
            for t in study.comparable(run)
        ],
    )


@dataclass(frozen=True, slots=True)
class _Choice:
    """Trials that win, one that stands ready, and those that were better but for memory.

    Attributes:
        winners: the winner, and the further trials that the published model blends with it.
        runner_up: takes the winner's place if its weights are lost.
        passed_over: trials that a final fit would have no memory for.
    """

    winners: tuple[Trial, ...]
    runner_up: Trial | None
    passed_over: tuple[PassedOver, ...]

    @classmethod
    def of(cls, study: Study, run: Run, ranked: Sequence[Trial], members: int) -> _Choice:
        """Choose among trials, one or more, best first; at most so many members."""
        memory = memory_of(run)
        passed_over, fitting = [], list[Trial]()
        for trial in ranked:
            shortage = memory_shortage(memory, study, run, trial)
            if not shortage:
                fitting.append(trial)
                if len(fitting) > members:
                    break
            elif not fitting:
                log.warning("trial %d is passed over: %s", trial.number, shortage)
                passed_over.append(PassedOver(trial=trial.number, reason=shortage))
        if not fitting:
            log.warning(
                "no other trial has memory for a final fit: trial %d stays", ranked[0].number
            )
            fitting, passed_over = list(ranked[: members + 1]), []
        runner_up = fitting[members] if len(fitting) > members else None
        return cls(tuple(fitting[:members]), runner_up, tuple(passed_over))


def _within_limits(run: Run, trials: Sequence[Trial]) -> Sequence[Trial]:
    """Return the trials that the run might have proposed itself: earlier ones had other limits."""
    if not run.limits.model_dump(exclude_none=True):
        return trials
    space = search_space(run)
    return [t for t in trials if t.candidate is not None and space.contains(t.candidate)]


def _fate(trial: Trial) -> str:
    if trial.outcome is None:
        return f"unfinished ({trial.state})"
    return f"{trial.outcome}: {trial.cause}" if trial.cause else str(trial.outcome)


def step(context: StepContext, call: StepCall) -> JsonValue:
    """Return the winner's document."""
    return choose(context).to_json()
