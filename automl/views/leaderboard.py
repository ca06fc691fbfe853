"""The trials of a study, ranked."""

from __future__ import annotations

from automl.domain.ranking import ranked
from automl.domain.study import Run, Study
from automl.domain.trial import NetworkMeasurement, Outcome, Trial
from automl.views.comparison import StrategyRow, compare_strategies
from automl.views.document import Document, Row
from automl.views.library import Library


class TrialRow(Row):
    """Result of a trial.

    Attributes:
        trial: its number.
        rank: its place among those that compare with it, from 1; None without a loss.
        outcome: how it ended; None while it has not.
        score: the objective, in its natural orientation.
        error: standard error of the score.
        parameters: learned scalars.
        macs: multiply-adds of one forward pass of one example.
        latency_ms: median time of one example on one CPU thread.
        seconds: time spent training, over all attempts.
        strategy: who proposed its candidate.
        parent: the trial whose weights it inherits.
        rung: the last one that it reached, 0 before the first.
        cause: why it did not complete.
        attempts: how often it was claimed.
    """

    trial: int
    rank: int | None
    outcome: Outcome | None
    score: float | None
    error: float | None
    parameters: int | None
    macs: int | None
    latency_ms: float | None
    seconds: float
    strategy: str
    parent: int | None
    rung: int
    cause: str
    attempts: int


class Leaderboard(Document):
    """The document of `automl leaderboard`.

    Attributes:
        study: the study's name.
        run: its newest run.
        trials: those that compare within that run: ranked ones first, then those without a loss.
        strategies: what each strategy came to, the one with the best trial first.
    """

    study: str
    run: str
    trials: tuple[TrialRow, ...]
    strategies: tuple[StrategyRow, ...]


def rank_trials(library: Library, name: str) -> Leaderboard:
    """Return the trials of the newest run's generation and snapshot, best first.

    Raises:
        ConfigError: there is no such study.
    """
    study = library.study(name)
    run = study.runs[-1]
    return Leaderboard(
        study=name,
        run=run.name,
        trials=trial_rows(study, run),
        strategies=compare_strategies(study.comparable(run)),
    )


def trial_rows(study: Study, run: Run) -> tuple[TrialRow, ...]:
    """Return the trials that compare within `run`: ranked ones first, then those without a loss."""
    comparable = study.comparable(run)
    best = [trial_row(trial, rank) for rank, trial in enumerate(ranked(comparable), 1)]
    return (*best, *(trial_row(trial, None) for trial in comparable if trial.loss is None))


def trial_row(trial: Trial, rank: int | None) -> TrialRow:
    """Return what a trial of that rank came to."""
    measured = trial.measurement
    network = measured.network or NetworkMeasurement()
    return TrialRow(
        trial=trial.number,
        rank=rank,
        outcome=trial.outcome,
        score=measured.score,
        error=measured.error,
        parameters=network.parameters,
        macs=network.macs,
        latency_ms=measured.latency_ms,
        seconds=measured.seconds,
        strategy=trial.strategy,
        parent=None if trial.candidate is None else trial.candidate.parent,
        rung=trial.rungs[-1].rung if trial.rungs else 0,
        cause=trial.cause,
        attempts=trial.attempt,
    )
