"""Choice of a run's winner among the trials of its study."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from automl.domain.events import PassedOver, TrialReleased
from automl.domain.ranking import ranked_winners
from automl.domain.study import Run, Study
from automl.domain.trial import Trial, TrialState
from automl.errors import Problem, SearchError
from automl.runs.continuation import continued_trial
from automl.runs.memory import memory_shortage
from automl.runs.proposals import memory_of, search_space

LEFT_BEHIND = "the search ended, and no worker came back to it"
_TOO_LARGE = "beyond search.limits"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
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
    def of(cls, name: str, study: Study, run: Run, members: int) -> Choice:
        """Choose among all trials that take part in a run.

        Args:
            name: of the study.
            study: the study.
            run: the run.
            members: how many trials the published model may blend.

        Raises:
            SearchError: no such trial has a score and weights; the problems are their causes. Or
                the log does not tell of the version that the run continues.
        """
        if run.continues is not None:
            return cls((continued_trial(study, run.continues),), None, ())
        return cls._among(_ranked(name, study, run), study, run, members)

    @classmethod
    def _among(cls, ranked: Sequence[Trial], study: Study, run: Run, members: int) -> Choice:
        """Choose among trials, one or more, best first."""
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


def _ranked(name: str, study: Study, run: Run) -> list[Trial]:
    able = _within_limits(run, study.comparable(run))
    winners = ranked_winners(able)
    if winners:
        return winners
    raise SearchError(
        f"No trial of study {name} has completed.",
        "see the causes below; a longer search.time_limit helps where trials timed out",
        [
            Problem(f"trial {t.number}", _fate(t) if t in able else _TOO_LARGE)
            for t in study.comparable(run)
        ],
    )


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


def left_behind(study: Study, run: Run, now: datetime) -> Iterator[TrialReleased]:
    """Yield the release of each trial that no worker of a search that is over will come back to."""
    for number in study.unfinished:
        trial = study.trials[number]
        if trial.state is TrialState.CLAIMED and trial.claimed_in == run.name:
            yield TrialReleased(at=now, n=number, attempt=trial.attempt, reason=LEFT_BEHIND)
