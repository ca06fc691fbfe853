"""Invariants of every study log, whatever died while it was written.

The log may hold late events of attempts that were fenced off: they are facts too. What must hold is
that the study does not count them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from automl.domain.events import (
    Event,
    RunClosed,
    RungReached,
    RunOpened,
    RunReopened,
    RunState,
    TrialClaimed,
    TrialFinished,
    TrialOpened,
    TrialProposed,
)
from automl.domain.study import Study, replay
from automl.domain.trial import Trial, TrialState
from automl.domain.trial_events import AboutTrial
from automl.errors import DamagedDataError


def violations(events: Iterable[tuple[int, Event]]) -> list[str]:
    """Return in words what is wrong with a log from its beginning on; nothing if it is whole.

    Args:
        events: (log version, event) in log order.
    """
    audit = LogAudit()
    for version, event in events:
        audit.add(version, event)
    return audit.violations


class LogAudit:
    """Follows a log event by event and notes what may never happen.

    - Versions have no gaps.
    - At most one run is open, and only one that failed or was abandoned is opened again. Trials are
      opened and claimed in an open run only, before its search has ended; what was begun may be
      claimed once more until its winner is chosen. `max_trials` of them at most get their outcome
      in it.
    - Every trial number is there once, and numbers have no gaps.
    - A trial gets one candidate, once, which no other trial of its generation and snapshot has.
    - Attempts grow by one, so that a trial has one attempt that counts.
    - An outcome is that of the last claimed attempt, and what has an outcome never changes.
    - Rungs of a trial rise. A rung's result is that of the last claimed attempt, the first one
      stands, and what is planned for a trial does not change.
    - An event changes the trial that it speaks of and no other.

    Attributes:
        study: the study after the events so far.
        violations: what is wrong, oldest first.
    """

    def __init__(self) -> None:
        self.study = Study()
        self.violations: list[str] = []
        self._outcomes: Counter[str] = Counter()  # by run
        self._identities: defaultdict[tuple[int, str], dict[str, int]] = defaultdict(dict)

    def add(self, version: int, event: Event) -> None:
        """Take the next event into account."""
        before = self.study
        if not before.version <= version <= before.version + 1 or version < 0:
            self._note(version, f"follows version {before.version}")
        try:
            self.study = replay([(version, event)], before)
        except DamagedDataError as error:
            self.violations.append(error.message)
            return
        if isinstance(event, RunOpened | RunReopened | RunClosed):
            self._check_run(version, event, before)
        elif isinstance(event, TrialOpened):
            self._check_start(version, event, before)
        elif isinstance(event, AboutTrial):
            old, new = before.trials[event.n], self.study.trials[event.n]
            self._check_trial(version, event, old, new)
            if isinstance(event, TrialClaimed) and new.attempt != old.attempt:
                self._check_start(version, event, before)
        self._check_others(version, event, before)

    def _note(self, version: int, what: str) -> None:
        self.violations.append(f"Version {version} of the study log {what}.")

    def _check_run(
        self, version: int, event: RunOpened | RunReopened | RunClosed, before: Study
    ) -> None:
        run = before.run(event.run)
        if isinstance(event, RunClosed):
            if run is not None and run.closed_at is not None:
                self._note(version, f"closes run {event.run} once more")
            return
        if isinstance(event, RunReopened):
            if run is not None and run.state not in {RunState.FAILED, RunState.ABANDONED}:
                self._note(version, f"reopens run {event.run}, which is {run.state}")
        elif run is not None:
            self._note(version, f"opens run {event.run} once more")
        if before.open_run is not None and before.open_run != run:
            self._note(version, f"opens run {event.run} while {before.open_run.name} is open")

    def _check_start(self, version: int, event: TrialOpened | TrialClaimed, before: Study) -> None:
        run = before.run(event.run)
        is_begun = isinstance(event, TrialClaimed) and event.attempt > 1
        may_start = (
            run is not None
            and run.closed_at is None
            and (run.search_end is None or (is_begun and run.winner is None))
        )
        if not may_start:
            self._note(
                version, f"starts trial {event.n} in run {event.run}, which is not searching"
            )

    def _check_trial(self, version: int, event: AboutTrial, old: Trial, new: Trial) -> None:
        if old.state is TrialState.FINISHED:
            if new != old:
                self._note(version, f"changes trial {event.n}, which has its outcome")
            return
        if old.candidate is not None and new.candidate != old.candidate:
            self._note(version, f"changes the candidate of trial {event.n}")
        if old.candidate is None and new.candidate is not None:
            self._check_candidate(version, event, new)
        if new.attempt != old.attempt:
            self._check_claim(version, event, old, new)
        if new.rungs != old.rungs:
            self._check_rung(version, event, old, new)
        if new.state is TrialState.FINISHED:
            self._check_outcome(version, event, old, new)

    def _check_candidate(self, version: int, event: Event, new: Trial) -> None:
        assert new.candidate is not None
        if not isinstance(event, TrialProposed) or event.candidate != new.candidate:
            self._note(version, f"gives trial {new.number} a candidate that was not proposed")
            return
        if not new.opened_in <= event.based_on < version:
            self._note(version, f"proposes trial {new.number} from version {event.based_on}")
        peers = self._identities[new.generation, new.snapshot]
        twin = peers.setdefault(new.candidate.identity, new.number)
        if twin != new.number:
            self._note(version, f"proposes for trial {new.number} the candidate of trial {twin}")

    def _check_claim(self, version: int, event: Event, old: Trial, new: Trial) -> None:
        if not isinstance(event, TrialClaimed) or event.attempt != new.attempt:
            self._note(version, f"changes the attempt of trial {old.number} without a claim")
            return
        if new.attempt != old.attempt + 1:
            self._note(
                version, f"claims attempt {new.attempt} of trial {old.number} after {old.attempt}"
            )
        if old.candidate is None:
            self._note(version, f"claims trial {old.number}, which has no candidate")

    def _check_rung(self, version: int, event: Event, old: Trial, new: Trial) -> None:
        n, one = old.number, new.rungs[-1]
        if not isinstance(event, RungReached) or event.attempt != old.attempt:
            self._note(version, f"gives trial {n} a rung's result not of its last attempt")
            return
        if new.rungs[:-1] != old.rungs:
            self._note(version, f"changes what trial {n} measured at an earlier rung")
        if not 0 < one.epochs <= one.planned:
            self._note(version, f"has trial {n} at epoch {one.epochs} of {one.planned}")
        if one.share is not None and not 0 < one.share <= 1:
            self._note(version, f"has trial {n} with {one.share:g} of its training done")
        before = old.rungs[-1] if old.rungs else None
        if before is None:
            return
        if one.rung <= before.rung or one.epochs <= before.epochs:
            self._note(
                version, f"has trial {n} at rung {one.rung} ({one.epochs} epochs) after rung "
                f"{before.rung} ({before.epochs} epochs)",
            )  # fmt: skip
        if one.planned != before.planned:
            self._note(version, f"plans {one.planned} epochs for trial {n} after {before.planned}")

    def _check_outcome(self, version: int, event: Event, old: Trial, new: Trial) -> None:
        if not isinstance(event, TrialFinished) or (
            (event.attempt, event.run, event.outcome, event.measurement)
            != (old.attempt, new.finished_by, new.outcome, new.measurement)
        ):
            self._note(version, f"gives trial {old.number} an outcome not of its last attempt")
            return
        self._outcomes[event.run] += 1
        run = self.study.run(event.run)
        limit = None if run is None else run.max_trials
        if run is None:
            self._note(version, f"ends trial {old.number} in run {event.run}, never opened")
        elif limit is not None and self._outcomes[event.run] > limit:
            self._note(version, f"ends more than {limit} trials in run {event.run}")

    def _check_others(self, version: int, event: Event, before: Study) -> None:
        """Note a change of what the event does not speak of."""
        old, new = before.trials, self.study.trials
        n = getattr(event, "n", len(old))
        if old[:n] != new[:n] or old[n + 1 :] != new[n + 1 :]:
            self._note(version, "changes a trial that it does not speak of")
