"""The trials that a searcher learns from, read off a study as it grows."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field

from automl.domain.study import Study
from automl.domain.trial import Outcome, Trial, TrialState


@dataclass(slots=True)
class History:
    """The trials of one generation, as a searcher sees them. Searchers do not change it.

    Only trials that have a candidate are in it.

    Attributes:
        snapshot: the dataset that the next trial is measured on.
        identities: of every candidate proposed on this snapshot.
        finished: the trials of this snapshot that have an outcome, in the order they ended.
        pending: those that have none yet, by number.
        parents: the finished trials that may lend weights, by number.
        elsewhere: the finished trials of other snapshots, in the order they ended.
    """

    snapshot: str
    identities: set[str] = field(default_factory=set)
    finished: list[Trial] = field(default_factory=list)
    pending: dict[int, Trial] = field(default_factory=dict)
    parents: list[Trial] = field(default_factory=list)
    elsewhere: list[Trial] = field(default_factory=list)

    def add(self, trial: Trial) -> None:
        """Take in a trial in its present state; a finished one once, after those before it."""
        if trial.candidate is None:
            return
        is_finished = trial.state is TrialState.FINISHED
        if trial.snapshot != self.snapshot:
            if is_finished:
                self.elsewhere.append(trial)
            return
        self.identities.add(trial.candidate.identity)
        if not is_finished:
            self.pending[trial.number] = trial
            self.pending = dict(sorted(self.pending.items()))  # candidates come in any order
            return
        self.pending.pop(trial.number, None)
        self.finished.append(trial)
        is_measured = trial.can_win or trial.outcome is Outcome.COMPLETED
        if is_measured and trial.outcome is not Outcome.DIVERGED:  # its children would, too
            insort(self.parents, trial, key=lambda parent: parent.number)


class HistoryReader:
    """Follows the states of one study; a later state costs what is new in it, not all of it."""

    def __init__(self) -> None:
        self._study = Study()
        self._histories: dict[tuple[int, str], History] = {}

    def read(self, study: Study, generation: int, snapshot: str) -> History:
        """Return the history at a state of the study. It is valid until the next call.

        Args:
            study: any state of the one study; going back is possible and reads all of it.
            generation: whose trials count.
            snapshot: the dataset that the next trial is measured on.
        """
        if study.version < self._study.version:
            self._study, self._histories = Study(), {}
        for (known, _), history in self._histories.items():
            _extend(history, self._study, study, known)
        self._study = study
        key = generation, snapshot
        if key not in self._histories:
            self._histories[key] = History(snapshot)
            _extend(self._histories[key], Study(), study, generation)
        return self._histories[key]


def changed_trials(before: Study, after: Study) -> list[Trial]:
    """Return the trials that differ between two states, those that ended last at the end."""
    numbers = [*before.unfinished, *range(len(before.trials), len(after.trials))]
    trials = [after.trials[number] for number in numbers]
    return sorted(trials, key=lambda trial: (trial.finished_in, trial.number))


def _extend(history: History, before: Study, after: Study, generation: int) -> None:
    for trial in changed_trials(before, after):
        if trial.generation == generation:
            history.add(trial)
