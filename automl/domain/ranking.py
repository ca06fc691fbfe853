"""The order of trials by what they measured."""

from __future__ import annotations

from collections.abc import Iterable

from automl.domain.trial import Trial


def ranked(trials: Iterable[Trial]) -> list[Trial]:
    """Return the trials that have a loss, best first: of equals the cheaper, then the earlier."""

    def rank(trial: Trial) -> tuple[float, int, int]:
        assert trial.loss is not None
        return trial.loss, trial.measurement.cost, trial.number

    return sorted((trial for trial in trials if trial.loss is not None), key=rank)


def ranked_winners(trials: Iterable[Trial]) -> list[Trial]:
    """Return those of the trials that can win, best first."""
    return ranked(trial for trial in trials if trial.can_win)
