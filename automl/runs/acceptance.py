"""Acceptance of changed data, by a person, so that the data gate lets them pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from automl.domain.documents import JsonValue
from automl.domain.events import DataAccepted, DataChanged
from automl.domain.study import Study
from automl.errors import ConfigError
from automl.runs.context import StoreClock
from automl.storage.home import Home, no_study
from automl.storage.study_log import StudyRecord


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Acceptance of the snapshot that a study's data gate has stopped.

    Attributes:
        stopped: what the gate found.
        accepted: who lets it pass, and why.
        is_new: this call accepted it; otherwise somebody had done so already.
    """

    stopped: DataChanged
    accepted: DataAccepted
    is_new: bool

    def document(self, study: str) -> dict[str, JsonValue]:
        """Return what `automl data accept --json` prints."""
        changes = (change for change in self.stopped.changes if change.is_suspicious)
        return {
            "schema": 1,
            "study": study,
            "snapshot": self.accepted.snapshot,
            "before": self.stopped.before,
            "changes": [change.model_dump(mode="json") for change in changes],
            "by": self.accepted.by,
            "why": self.accepted.why,
            "changed": self.is_new,
        }


def accept(home: Home, study: str, who: str, why: str) -> Acceptance:
    """Let the snapshot pass that the study's data gate stopped last.

    It passes until another run of the study is opened: any later snapshot is judged anew.

    Args:
        home: where the study is.
        study: its name.
        who: the person who accepts it.
        why: the reason, for the record.

    Raises:
        ConfigError: there is no such study, nothing to accept, or no reason.
    """
    if not why.strip():
        raise ConfigError("--why is empty.", "say in a sentence why the changed data are right")
    record, clock = StudyRecord(home.study_log(study)), StoreClock(home.store)
    is_new = False

    def decide(now: Study) -> Sequence[DataAccepted]:
        nonlocal is_new
        if not now.runs:
            raise no_study(home, study)
        is_new = _accepted(now) is None
        if not is_new:
            return ()
        if now.judged is None or not now.judged.stopped:
            raise ConfigError(
                f"The data gate of study {study} has stopped nothing since its last run.",
                "run the study: with data.gate.on_change: stop its step `prepare` judges the data",
            )
        snapshot = now.judged.snapshot
        return (DataAccepted(at=clock.now(), snapshot=snapshot, by=who, why=why.strip()),)

    after = record.commit(decide)
    accepted = _accepted(after)
    assert accepted is not None
    assert after.judged is not None
    return Acceptance(after.judged, accepted, is_new)


def _accepted(study: Study) -> DataAccepted | None:
    """Return the acceptance of the snapshot that was judged last, if there is one."""
    judged, accepted = study.judged, study.accepted
    if judged is None or accepted is None or judged.snapshot != accepted.snapshot:
        return None
    return accepted
