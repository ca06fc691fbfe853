"""What holds of every study log, whatever died while it was written.

The log may hold late events of attempts that were fenced off: they are facts too. What must hold is
that the study does not count them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from automl.domain.events import (
    Event,
    RunClosed,
    RunOpened,
    TrialClaimed,
    TrialFinished,
    TrialOpened,
    TrialProposed,
    TrialReleased,
)
from automl.domain.study import Study, replay
from automl.domain.trial import Trial, TrialState
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
    - At most one run is open. Trials start in an open run only, and before its search has ended.
    - Every trial number is there once, and numbers have no gaps.
    - A trial gets one candidate, once, which no other trial of its generation and snapshot has.
    - Attempts grow by one, so that a trial has one attempt that counts.
    - An outcome is that of the last claimed attempt, and what has an outcome never changes.
    - An event changes the trial that it speaks of and no other.

    Attributes:
        study: the study after the events so far.
        violations: what is wrong, oldest first.
    """

    def __init__(self) -> None:
        self.study = Study()
        self.violations: list[str] = []
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
        if isinstance(event, RunOpened | RunClosed):
            self._check_run(version, event, before)
        elif isinstance(event, TrialOpened):
            self._check_start(version, event, before)
        elif isinstance(event, TrialProposed | TrialClaimed | TrialReleased | TrialFinished):
            self._check_trial(version, event, before.trials[event.n], self.study.trials[event.n])
        self._check_others(version, event, before)

    def _note(self, version: int, what: str) -> None:
        self.violations.append(f"Version {version} of the study log {what}.")

    def _check_run(self, version: int, event: RunOpened | RunClosed, before: Study) -> None:
        run = before.run(event.run)
        if isinstance(event, RunClosed):
            if run is not None and run.closed_at is not None:
                self._note(version, f"closes run {event.run} once more")
            return
        if run is not None:
            self._note(version, f"opens run {event.run} once more")
        if before.open_run is not None:
            self._note(version, f"opens run {event.run} while {before.open_run.name} is open")

    def _check_start(self, version: int, event: TrialOpened | TrialClaimed, before: Study) -> None:
        run = before.run(event.run)
        if run is None or not run.is_searching:
            self._note(
                version, f"starts trial {event.n} in run {event.run}, which is not searching"
            )

    def _check_trial(
        self,
        version: int,
        event: TrialProposed | TrialClaimed | TrialReleased | TrialFinished,
        old: Trial,
        new: Trial,
    ) -> None:
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
        if new.state is TrialState.FINISHED and not (
            isinstance(event, TrialFinished)
            and (event.attempt, event.run) == (old.attempt, new.finished_by)
            and (event.outcome, event.measurement) == (new.outcome, new.measurement)
        ):
            self._note(version, f"gives trial {event.n} an outcome that is not its last attempt's")

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

    def _check_others(self, version: int, event: Event, before: Study) -> None:
        """Note a change of what the event does not speak of."""
        n = getattr(event, "n", None)
        kept = [trial for trial in before.trials if trial.number != n]
        if kept != [trial for trial in self.study.trials if trial.number != n]:
            self._note(version, "changes a trial that it does not speak of")
        if not isinstance(event, TrialFinished) and _outcomes(self.study) != _outcomes(before):
            self._note(version, "changes the number of outcomes")


def _outcomes(study: Study) -> int:
    return sum(trial.outcome is not None for trial in study.trials)
