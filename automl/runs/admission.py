"""Admission of prepared data: they are compared with those of the study's last run.

What differs is recorded in the study's log before the run is opened. With `data.gate.on_change:
stop` a suspicious change ends the run, unless a person has accepted that very snapshot.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from automl.data.files import FileStore
from automl.data.gate import compare
from automl.data.snapshot import Envelope
from automl.domain.data_change import ChangeKind, DataChange
from automl.domain.events import DataChanged
from automl.domain.specification import OnChange
from automl.domain.study import Study
from automl.errors import DamagedDataError, DataGateError, NotFoundError, Problem
from automl.runs.context import StepContext
from automl.runs.ownership import check_owner

log = logging.getLogger(__name__)


def admit(context: StepContext, envelope: Envelope) -> None:
    """Tell what is odd about a snapshot that was prepared for the run, and let it pass, or not.

    A second call writes nothing new. The run itself is not opened, and needs no end.

    Args:
        context: the step's context.
        envelope: of the snapshot.

    Raises:
        DataGateError: it differs too much from that of the study's last run.
        ConfigError: the study belongs to another.
    """
    for finding in envelope.findings:
        log.warning("%s", finding)

    judged: DataChanged | None = None

    def decide(study: Study) -> Sequence[DataChanged]:
        nonlocal judged
        judged = _judge(context, study, envelope)
        if judged is None or _is_recorded(study, judged):
            return ()
        check_owner(context, study)
        return (judged,)

    study = context.record.commit(decide)
    if judged is not None:
        _tell(context, study, judged)


def _judge(context: StepContext, study: Study, envelope: Envelope) -> DataChanged | None:
    """Return what the snapshot differs in from the last run's; None if it is the same one.

    A run that is open already has its snapshot, and keeps it.
    """
    if not study.runs or study.run(context.run) is not None:
        return None
    before = study.runs[-1].snapshot
    if before == envelope.id:
        return None
    changes = tuple(changes_since(context.store, before, envelope))
    accepted = study.accepted is not None and study.accepted.snapshot == envelope.id
    stops = context.spec.data.gate.on_change is OnChange.STOP and not accepted
    return DataChanged(
        at=context.clock.now(),
        run=context.run,
        snapshot=envelope.id,
        before=before,
        changes=changes,
        stopped=stops and any(change.is_suspicious for change in changes),
    )


def changes_since(store: FileStore, before: str, envelope: Envelope) -> Sequence[DataChange]:
    """Return what a snapshot differs in; one entry that says why where that cannot be told.

    Args:
        store: holds the snapshots.
        before: id of the one that it is compared with.
        envelope: of the snapshot.
    """
    try:
        last = Envelope.read(store, envelope.dataset, before)
    except NotFoundError:
        why = f"snapshot {before}, which it was opened on, is gone"
    except DamagedDataError as error:
        why = error.message
    else:
        if last.profile is not None and envelope.profile is not None:
            return compare(last.profile, envelope.profile)
        without = before if last.profile is None else envelope.id
        why = (
            f"snapshot {without} has no profile; an earlier release made it, or its track has none"
        )
    message = f"the data were not compared with those of the last run: {why}"
    return (DataChange(kind=ChangeKind.NOT_COMPARED, message=message),)


def _is_recorded(study: Study, judged: DataChanged) -> bool:
    known = study.judged
    return known is not None and known.model_copy(update={"at": judged.at}) == judged


def _tell(context: StepContext, study: Study, judged: DataChanged) -> None:
    """Log what has changed, and stop the run if the gate does."""
    name = context.spec.name
    log.info("snapshot %s follows %s, that of the last run", judged.snapshot, judged.before)
    for change in judged.changes:
        is_notable = change.is_suspicious or change.kind is ChangeKind.NOT_COMPARED
        log.log(logging.WARNING if is_notable else logging.INFO, "data: %s", change.message)
    if study.accepted is not None and study.accepted.snapshot == judged.snapshot:
        log.info("%s has accepted these data: %s", study.accepted.by, study.accepted.why)
    if judged.stopped:
        raise DataGateError(
            f"The data of study {name} have changed suspiciously since its last run, and "
            "data.gate.on_change is stop.",
            f'if they are right, run `automl data accept {name} --why "..."` and then this again; '
            "if not, correct the source",
            [Problem(c.kind.value, c.message) for c in judged.changes if c.is_suspicious],
        )
