"""Data reports: a page for people beside each snapshot, which is written again when it is stale.

A report is derived: nothing reads it but to know what it was made from, and a run goes on without.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import astuple, dataclass
from typing import Any

from automl import __version__
from automl.data.exhibits import Wanted
from automl.data.snapshot import Envelope
from automl.doctor.data_issues import Audited
from automl.doctor.data_page import (
    PER_LABEL,
    build_page,
    names_of,
    sampled_labels,
    shown_issues,
)
from automl.doctor.inspection import Inspection, exhibits_of, inspect_snapshot
from automl.domain.layout import DatasetKeys, SnapshotKeys
from automl.domain.settings import Settings
from automl.domain.study import Study
from automl.domain.values import NAME_PATTERN
from automl.errors import AutoMLError, ConfigError, NotFoundError, StorageError
from automl.storage.home import Home
from automl.storage.objects import ObjectStore
from automl.storage.open import open_home
from automl.storage.study_log import StudyRecord
from automl.tracks.cards import installed_cards

PAGE = 1  # rises when the same inspection makes another page
_SNAPSHOT = r"[\w-]+"
_MADE_FROM = "automl-made-from"  # the metadata of a page that tells what it was made from

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Inspected:
    """An inspection, and where people find it.

    Attributes:
        inspection: what the snapshot holds.
        report: path or URI of the report; None if there is none.
        problem: why the report could not be written, or "".
    """

    inspection: Inspection
    report: str | None
    problem: str

    def to_json(self) -> dict[str, Any]:
        """Return the document of `automl data inspect`."""
        return self.inspection.to_json() | {"report": self.report, "report_problem": self.problem}


def inspect_data(settings: Settings, dataset: str) -> Inspected:
    """Return what a snapshot holds, and see to it that its report says so.

    Args:
        settings: where it is kept.
        dataset: name of the dataset, which is that of its study; with `@` and an id for another
            than the snapshot of the newest run.

    Raises:
        ConfigError: there is no such snapshot.
        StorageError: the log or the snapshot cannot be read.
    """
    home = open_home(settings)
    name, _, asked = dataset.partition("@")
    if re.fullmatch(NAME_PATTERN, name) is None:
        raise _unprepared(home, dataset)
    study = StudyRecord(home.study_log(name)).refresh()
    snapshot = asked or (study.runs[-1].snapshot if study.runs else _newest(home.store, name))
    if snapshot is None:
        raise _unprepared(home, dataset)
    envelope = SnapshotKeys(name, snapshot).envelope
    if re.fullmatch(_SNAPSHOT, snapshot) is None or not _is_stored(home.store, envelope):
        known = ", ".join(_snapshots(home.store, name)) or "none"
        raise ConfigError(
            f"There is no snapshot {snapshot!r} of {name} under {home.store.uri}.",
            f"known here: {known}; `automl run` prepares the source again",
        )
    audited = Audited(name, snapshot, _task(study, snapshot))
    inspection = inspect_snapshot(home, study, audited)
    key = inspection.envelope.keys.report
    if not audited.task and _is_stored(home.store, key):  # the run that wrote it knew its track
        return Inspected(inspection, _uri(home.store, key), "")
    try:
        return Inspected(inspection, write_report(home, inspection), "")
    except StorageError as error:
        there = _uri(home.store, key) if _is_stored(home.store, key) else None
        return Inspected(inspection, there, f"the report could not be written: {error}")


def keep_report(home: Home, study: Study, audited: Audited) -> None:
    """See to it that the report of a run's snapshot is there and up to date.

    Whatever fails is a warning: a report is no reason to lose a run.

    Args:
        home: where the snapshot is kept.
        study: what the log tells now.
        audited: the snapshot, and the task of the study.
    """
    try:
        uri = write_report(home, inspect_snapshot(home, study, audited))
    except AutoMLError as error:
        log.warning("the data report was not written: %s", error)
    except Exception:  # of a track, or of a library that draws
        log.warning("the data report was not written", exc_info=True)
    else:
        log.info("the data report is %s", uri)


def has_report(store: ObjectStore, envelope: Envelope) -> bool:
    """Return whether a snapshot has a report, which may be stale."""
    return _is_stored(store, envelope.keys.report)


def write_report(home: Home, inspection: Inspection) -> str:
    """Write the report of a snapshot unless it is up to date, and return its path or URI.

    Raises:
        StorageError: the rows to show cannot be read, or the report cannot be written.
    """
    key, source = inspection.envelope.keys.report, _digest(inspection)
    if _made_from(home.store, key) != source:
        issues = [each for shown in shown_issues(inspection).values() for each in shown]
        wanted = Wanted(
            labels=sampled_labels(inspection),
            per_label=PER_LABEL,
            rows=[name for issue in issues for name in names_of(issue)],
            sealed=inspection.sealed,
        )
        exhibits = exhibits_of(home, inspection.audited, wanted)
        home.store.put(key, build_page(inspection, exhibits, {_MADE_FROM: source}))
    return _uri(home.store, key)


def _digest(inspection: Inspection) -> str:
    """Return what names all that a page is made from."""
    issues = () if inspection.audit is None else inspection.audit.found.issues
    content = [PAGE, __version__, inspection.to_json(), [astuple(issue) for issue in issues]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _made_from(store: ObjectStore, key: str) -> str | None:
    try:
        text = store.get(key).data.decode(errors="replace")
    except NotFoundError:
        return None
    match = re.search(rf'<meta name="{_MADE_FROM}" content="([0-9a-f]+)">', text)
    return match[1] if match else None


def _task(study: Study, snapshot: str) -> str:
    """Return the task of a snapshot: its runs', the study's, or the only one there is; else ""."""
    on_it = [run for run in study.runs if run.snapshot == snapshot]
    for run in (*reversed(on_it), *reversed(study.runs)):
        if run.task:
            return run.task
    cards = installed_cards()
    return next(iter(cards)) if len(cards) == 1 else ""


def _snapshots(store: ObjectStore, name: str) -> list[str]:
    """Return the ids of the snapshots of a dataset, the newest first."""
    keys = DatasetKeys(name)
    found = [
        (entry.modified, snapshot)
        for entry in store.list(f"{keys.folder}/")
        if (snapshot := keys.snapshot_of(entry.key)) is not None
    ]
    return [snapshot for _, snapshot in sorted(found, reverse=True)]


def _newest(store: ObjectStore, name: str) -> str | None:
    return next(iter(_snapshots(store, name)), None)


def _unprepared(home: Home, dataset: str) -> ConfigError:
    known = ", ".join(home.study_names()) or "none"
    return ConfigError(
        f"There is no prepared dataset {dataset!r} under {home.store.uri}.",
        "a dataset has the name of its study; `automl check STUDY.yaml` looks at a source that "
        f"is not prepared, `automl run STUDY.yaml` prepares it; known here: {known}",
    )


def _is_stored(store: ObjectStore, key: str) -> bool:
    return any(entry.key == key for entry in store.list(key))


def _uri(store: ObjectStore, key: str) -> str:
    return f"{store.uri.rstrip('/')}/{key}"
