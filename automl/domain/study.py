"""A study as its log tells it: `replay` is pure, and a prefix of the log is a past state."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from automl.domain.data_change import DataChange
from automl.domain.events import (
    DataAccepted,
    DataChanged,
    Event,
    FinalFitFinished,
    RunClosed,
    RunOpened,
    RunReopened,
    RunState,
    SearchEnd,
    SearchEnded,
    StudyGiven,
    TestOpened,
    TrialOpened,
    VersionPublished,
    VersionReserved,
    WinnerChosen,
)
from automl.domain.facts import Origin, SpaceFacts, Terms
from automl.domain.specification import LimitsSection
from automl.domain.trial import Trial, TrialState
from automl.domain.trial_events import AboutTrial, changed
from automl.errors import DamagedDataError


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a study.

    Attributes:
        name: its id.
        opened_at: when it was opened.
        deadline: when its search ends.
        snapshot: id of the dataset it searches on.
        generation: its trials' generation.
        spec: the specification it was opened with, as it was recorded.
        origin: who opened it.
        task: what the published file predicts, and from what; "" if the log does not say.
        continues: the published version that it continues instead of searching; None: it searches.
        max_trials: how many trials may reach their outcome in it; None for any number.
        limits: what a candidate may cost.
        space: what its search space depends on besides `spec`; None if the log does not say.
        state: open or how it was closed.
        search_end: why its search ended; None while it goes on.
        search_ended_at: when.
        winner: number of the chosen trial.
        runner_up: the trial that is published if the winner's weights are lost.
        blended: the further trials that the published model blends with the winner.
        chosen_at: when it was chosen.
        final_fit: how the published weights were made.
        version: the version it reserved.
        test_opened: whether the sealed test rows have been read for it.
        published: whether that version's manifest exists.
        promoted: whether the version became the champion.
        cause: why the run failed.
        closed_at: when it was closed; None while it is open.
        reopened_at: when it was opened again last, after it had failed; None if it never was.
        outcomes: how many trials reached their outcome in it.
        changes: what of its data differs from those of the run before.
    """

    name: str
    opened_at: datetime
    deadline: datetime
    snapshot: str
    generation: int
    spec: dict[str, Any]
    origin: Origin
    task: str = ""
    continues: int | None = None
    max_trials: int | None = None
    limits: LimitsSection = field(default_factory=LimitsSection)
    space: SpaceFacts | None = None
    state: RunState = RunState.OPEN
    search_end: SearchEnd | None = None
    search_ended_at: datetime | None = None
    winner: int | None = None
    runner_up: int | None = None
    blended: tuple[int, ...] = ()
    chosen_at: datetime | None = None
    final_fit: FinalFitFinished | None = None
    version: int | None = None
    test_opened: bool = False
    published: bool = False
    promoted: bool = False
    cause: str = ""
    closed_at: datetime | None = None
    reopened_at: datetime | None = None
    outcomes: int = 0
    changes: tuple[DataChange, ...] = ()

    @property
    def is_searching(self) -> bool:
        """True while trials may start in it."""
        return self.state is RunState.OPEN and self.search_end is None

    @property
    def is_undecided(self) -> bool:
        """True while an outcome may still make a trial its winner."""
        return self.state is RunState.OPEN and self.winner is None


@dataclass(frozen=True, slots=True)
class Study:
    """The state of a study after some version of its log.

    Attributes:
        version: the last version replayed, -1 for an empty log.
        runs: all runs, oldest first.
        trials: all trials, by number.
        generation_keys: the key of each generation, oldest first.
        decisions: how often the sealed test rows have been opened.
        unfinished: numbers of the trials that have no outcome yet.
        owner: whose runs it is for; None before it was given to anybody.
        split: thresholds of the last generation's split, by label; None where the log does not tell
            them.
        judged: the newest comparison of data since the last run was opened; None without any.
        accepted: the newest acceptance of changed data since then.
    """

    version: int = -1
    runs: tuple[Run, ...] = ()
    trials: tuple[Trial, ...] = ()
    generation_keys: tuple[str, ...] = ()
    decisions: int = 0
    unfinished: tuple[int, ...] = ()
    owner: Origin | None = None
    split: Mapping[str, tuple[float, ...]] | None = None
    judged: DataChanged | None = None
    accepted: DataAccepted | None = None

    def run(self, name: str) -> Run | None:
        """Return the run called `name`, or None."""
        return next((run for run in reversed(self.runs) if run.name == name), None)

    def fitted(self, version: int) -> Run | None:
        """Return the run whose final fit made `version`, or None."""
        made = (run for run in self.runs if run.version == version and run.final_fit is not None)
        return next(made, None)

    def is_later(self, name: str, run: Run) -> bool:
        """Return whether a run called `name` is known and was opened after `run`."""
        names = [each.name for each in self.runs]
        return name in names and names.index(name) > names.index(run.name)

    @property
    def open_run(self) -> Run | None:
        """The run that is not closed, or None."""
        return next((run for run in self.runs if run.state is RunState.OPEN), None)

    def comparable(self, run: Run) -> tuple[Trial, ...]:
        """Return the trials whose scores compare within `run`: same generation and snapshot."""
        return tuple(
            trial
            for trial in self.trials
            if trial.generation == run.generation and trial.snapshot == run.snapshot
        )

    def comparable_runs(self, run: Run) -> tuple[Run, ...]:
        """Return the runs that search what `run` does, oldest first: generation and snapshot."""
        return tuple(
            one
            for one in self.runs
            if one.generation == run.generation and one.snapshot == run.snapshot
        )

    def comparable_unfinished(self, run: Run) -> tuple[Trial, ...]:
        """Return those of `comparable` that have no outcome yet, without a look at the others."""
        trials = (self.trials[number] for number in self.unfinished)
        return tuple(
            trial
            for trial in trials
            if trial.generation == run.generation and trial.snapshot == run.snapshot
        )


def lineage(study: Study, trial: Trial) -> list[Trial]:
    """Return a proposed trial, its parent and so on up to the one that has none."""
    family = [trial]
    while (candidate := family[-1].candidate) is not None and candidate.parent is not None:
        family.append(study.trials[candidate.parent])
    return family


def replay(events: Iterable[tuple[int, Event]], start: Study = Study()) -> Study:
    """Return the study after `events`.

    Args:
        events: (log version, event) in log order, continuing after `start`.
        start: the state to continue from.

    Raises:
        DamagedDataError: the events contradict each other.
    """
    fold = _Fold(start)
    for version, event in events:
        fold.apply(version, event)
    return fold.study()


class _Fold:
    """Mutable state of one replay."""

    def __init__(self, start: Study) -> None:
        self._version = start.version
        self._runs = {run.name: run for run in start.runs}
        self._trials = list(start.trials)
        self._generation_keys = list(start.generation_keys)
        self._decisions = start.decisions
        self._unfinished = dict.fromkeys(start.unfinished)  # in order
        self._owner = start.owner
        self._split = start.split
        self._judged = start.judged
        self._accepted = start.accepted

    def study(self) -> Study:
        return Study(
            self._version,
            tuple(self._runs.values()),
            tuple(self._trials),
            tuple(self._generation_keys),
            self._decisions,
            tuple(self._unfinished),
            self._owner,
            self._split,
            self._judged,
            self._accepted,
        )

    def apply(self, version: int, event: Event) -> None:
        self._version = version
        if isinstance(event, RunOpened):
            self._open_run(event)
        elif isinstance(event, TrialOpened):
            self._open_trial(event)
        elif isinstance(event, AboutTrial):
            self._change_trial(event)
        elif isinstance(event, StudyGiven):
            self._owner = Origin.of(event.owner)
        elif isinstance(event, RunReopened):
            self._reopen_run(event)
        elif isinstance(event, DataChanged):
            self._judged = event
        elif isinstance(event, DataAccepted):
            self._accepted = event
        else:
            self._change_run(event)

    def _open_run(self, event: RunOpened) -> None:
        if not self._generation_keys or self._generation_keys[-1] != event.generation_key:
            self._generation_keys.append(event.generation_key)
            self._split = event.split
        terms = Terms.of(event.spec)
        self._runs[event.run] = Run(
            name=event.run,
            opened_at=event.at,
            deadline=event.deadline,
            snapshot=event.snapshot,
            generation=len(self._generation_keys) - 1,
            spec=event.spec,
            origin=Origin.of(event.origin),
            task=terms.task,
            continues=terms.continues,
            max_trials=terms.max_trials,
            limits=terms.limits,
            space=None if event.space is None else SpaceFacts.of(event.space),
            changes=self._changes_of(event),
        )
        self._judged = self._accepted = None

    def _changes_of(self, event: RunOpened) -> tuple[DataChange, ...]:
        """Return what was found when the run's snapshot was prepared for it."""
        judged = self._judged
        if judged is None or (judged.run, judged.snapshot) != (event.run, event.snapshot):
            return ()
        return judged.changes

    def _reopen_run(self, event: RunReopened) -> None:
        """Open a run once more; what it has come to stays, but for a search that begins anew."""
        run = dataclasses.replace(
            self._known_run(event.run),
            state=RunState.OPEN,
            cause="",
            closed_at=None,
            reopened_at=event.at,
        )
        if event.deadline is not None:
            run = dataclasses.replace(
                run, deadline=event.deadline, search_end=None, search_ended_at=None
            )
        self._runs[event.run] = run

    def _open_trial(self, event: TrialOpened) -> None:
        run = self._known_run(event.run)
        if event.n != len(self._trials):
            raise self._contradiction(f"opens trial {event.n} after {len(self._trials)} trials")
        self._unfinished[event.n] = None
        self._trials.append(
            Trial(
                event.n,
                event.run,
                run.generation,
                run.snapshot,
                worker=event.worker,
                opened_in=self._version,
                device=event.device,
            )
        )

    def _change_trial(self, event: AboutTrial) -> None:
        if not 0 <= event.n < len(self._trials):
            raise self._contradiction(f"speaks of trial {event.n}, which was never opened")
        trial = self._trials[event.n]
        if trial.state is TrialState.FINISHED:
            return  # a late event of a zombie: the first outcome stands
        trial = changed(trial, event, self._version)
        self._trials[event.n] = trial
        if trial.state is TrialState.FINISHED:
            del self._unfinished[event.n]
            self._count_outcome(trial)

    def _count_outcome(self, trial: Trial) -> None:
        run = self._runs.get(trial.finished_by or "")
        if run is not None:
            self._runs[run.name] = dataclasses.replace(run, outcomes=run.outcomes + 1)

    def _change_run(
        self,
        event: SearchEnded
        | WinnerChosen
        | FinalFitFinished
        | VersionReserved
        | TestOpened
        | VersionPublished
        | RunClosed,
    ) -> None:
        run = self._known_run(event.run)
        if isinstance(event, SearchEnded):
            if run.search_end is None:
                run = dataclasses.replace(run, search_end=event.reason, search_ended_at=event.at)
        elif isinstance(event, WinnerChosen):
            run = dataclasses.replace(
                run,
                winner=event.trial,
                runner_up=event.runner_up,
                blended=event.blended,
                chosen_at=event.at,
            )
        elif isinstance(event, FinalFitFinished):
            run = dataclasses.replace(run, final_fit=event)
        elif isinstance(event, VersionReserved):
            run = dataclasses.replace(run, version=event.version)
        elif isinstance(event, TestOpened):
            self._decisions += 1
            run = dataclasses.replace(run, test_opened=True)
        elif isinstance(event, VersionPublished):
            run = dataclasses.replace(run, published=True)
        else:
            run = dataclasses.replace(
                run,
                state=event.state,
                cause=event.cause,
                promoted=event.promoted,
                closed_at=event.at,
            )
        self._runs[event.run] = run

    def _known_run(self, name: str) -> Run:
        if name not in self._runs:
            raise self._contradiction(f"speaks of run {name!r}, which was never opened")
        return self._runs[name]

    def _contradiction(self, what: str) -> DamagedDataError:
        return DamagedDataError(
            f"Version {self._version} of the study log {what}.",
            "the log was damaged; see docs/runbook.md",
        )
