"""Audits of the data of one study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from automl.data.issues import UNKNOWN, AuditedRows, Issues, find_issues, to_csv
from automl.domain.layout import StudyKeys
from automl.domain.settings import Settings
from automl.domain.study import Study
from automl.errors import ConfigError, StorageError
from automl.runs.out_of_sample import CrossFitted, OutOfSample, cross_fitted, mean_predictions
from automl.storage.durable import write_file
from automl.storage.home import Home, no_study
from automl.storage.open import open_home
from automl.storage.study_log import StudyRecord
from automl.tracks.cards import card_of, load
from automl.tracks.track import Use, track_of


@dataclass(frozen=True, slots=True)
class Audit:
    """Findings about the rows of a snapshot.

    Attributes:
        study: the study's name.
        snapshot: id of the snapshot.
        found: what a person should look at.
        classes: labels by index.
        trials: numbers of the trials whose predictions were looked at, for held-out rows.
        notes: what could not be looked at, for people.
        cross_fit: name of the run whose cross-fit was looked at, for training rows; "" without any.
    """

    study: str
    snapshot: str
    found: Issues
    classes: tuple[str, ...]
    trials: tuple[int, ...]
    notes: tuple[str, ...]
    cross_fit: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the document of `automl data issues`."""
        return {
            "schema": 1,
            "study": self.study,
            "snapshot": self.snapshot,
            "trials": list(self.trials),
            "cross_fit": self.cross_fit or None,
            "judged": sum(self.found.judged),
            "judged_by": dict(zip(("trials", "cross_fit"), self.found.judged, strict=True)),
            "counts": dict(Counter(issue.kind.value for issue in self.found.issues)),
            "confused": [
                {"given": self.classes[y], "suggested": self.classes[j], "rows": rows}
                for y, j, rows in self.found.pairs
            ],
            "notes": list(self.notes),
            "issues": [asdict(issue) for issue in self.found.issues],
        }

    def to_csv(self) -> str:
        """Return the issues as a table that `data.corrections` reads."""
        return to_csv(self.found.issues)


def audit_data(settings: Settings, name: str) -> Audit:
    """Return what is known of the data of a study.

    Args:
        settings: where the study is kept.
        name: its name.

    Raises:
        ConfigError: there is no such study, or its track has no audit.
        StorageError: the log or the snapshot cannot be read.
    """
    home = open_home(settings)
    study = StudyRecord(home.study_log(name)).refresh()
    if not study.runs:
        raise no_study(home, name)
    run = study.runs[-1]
    if not card_of(run.task).auditor:
        raise ConfigError(
            f"The rows of a study of the task {run.task} cannot be audited.",
            "its track has no audit; ask those who wrote it",
        )
    return audit_snapshot(home, study, Audited(name, run.snapshot, run.task))


class Audited(NamedTuple):
    """Snapshot that is audited.

    Attributes:
        dataset: whose snapshot it is, the name of its study.
        snapshot: its id.
        task: of its track, which has an audit.
    """

    dataset: str
    snapshot: str
    task: str


def audit_snapshot(home: Home, study: Study, audited: Audited) -> Audit:
    """Return what is known of the rows of a snapshot.

    Args:
        home: where it is kept.
        study: what the log tells; it need not have a run on the snapshot.
        audited: what to look at.

    Raises:
        StorageError: the snapshot cannot be read.
    """
    name, snapshot, task = audited
    rows: AuditedRows = load(card_of(task).auditor)(
        home.store, name, snapshot, sealed_parts(home, study, audited)
    )
    on_it = [run for run in study.runs if run.snapshot == snapshot]
    trials = study.comparable(on_it[-1]) if on_it else ()
    runs = study.comparable_runs(on_it[-1]) if on_it else ()
    held_out = mean_predictions(home.store, trials, len(rows.classes))
    training = cross_fitted(home.store, StudyKeys(name), runs, len(rows.classes))
    found = find_issues(rows, [held_out.means, training.values])
    notes = tuple(_notes(rows, held_out, training, found))
    return Audit(name, snapshot, found, rows.classes, held_out.trials, notes, training.run)


def sealed_parts(home: Home, study: Study, audited: Audited) -> frozenset[str]:
    """Return the parts of a snapshot whose labels nobody may see before a run has opened them."""
    if any(run.test_opened and run.snapshot == audited.snapshot for run in study.runs):
        return frozenset()
    dataset = track_of(audited.task).open(home.store, audited.dataset, audited.snapshot)
    return frozenset({*dataset.parts(Use.GATE), *dataset.parts(Use.REPORT)})


def _notes(
    rows: AuditedRows, held_out: OutOfSample, training: CrossFitted, found: Issues
) -> Iterator[str]:
    if not held_out.trials and not training.run:
        yield "no trial has completed on this snapshot: likely label errors are not known yet"
    else:
        yield _judged(rows, training, found)
    sealed = int((rows.labels == UNKNOWN).sum())
    if sealed:
        yield f"the labels of {sealed:,} sealed test rows are not looked at before a run opens them"
    if rows.near is not None and rows.near.capped:
        yield (
            f"{rows.near.capped:,} rows look like so many others, as blank ones do, that they were "
            "compared with some of these only"
        )
    if not rows.statistics:
        yield "an earlier release made this snapshot: odd and similar rows are told of the next one"
    yield from held_out.problems
    yield from training.problems


def _judged(rows: AuditedRows, training: CrossFitted, found: Issues) -> str:
    """Return which rows are judged, and by what."""
    by_trials, by_cross_fit = found.judged
    left = len(rows.paths) - by_trials - by_cross_fit
    scored = f"the {by_trials:,} rows that trials are scored on"
    if not training.run:
        return (
            f"likely label errors are looked for among {scored}; of the other {left:,}, which they "
            "learn from or which test them, there are no predictions out of sample: no run on this "
            "snapshot had the time to fit its winner on each half of the training rows and predict "
            "the other"
        )
    return (
        f"likely label errors are looked for among {scored}, by the mean of the trials, and among "
        f"{by_cross_fit:,} training rows, by what run {training.run} predicted for each half of "
        f"them after a fit on the other; of the other {left:,}, which test trials, there are no "
        "predictions out of sample"
    )


def write_table(audit: Audit, path: Path) -> None:
    """Write the issues of an audit as a table.

    Raises:
        StorageError: it cannot be written there.
    """
    try:
        write_file(path, audit.to_csv().encode())
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror}.", "choose another place"
        ) from error
