"""Audits of the data of one study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from automl.data.issues import UNKNOWN, AuditedRows, Issues, find_issues, to_csv
from automl.domain.settings import Settings
from automl.domain.study import Run
from automl.errors import ConfigError, StorageError
from automl.runs.out_of_sample import OutOfSample, mean_predictions
from automl.storage.durable import write_file
from automl.storage.home import no_study
from automl.storage.open import open_home
from automl.storage.study_log import StudyRecord
from automl.tracks.cards import card_of, load
from automl.tracks.track import Use, track_of


@dataclass(frozen=True, slots=True)
class Audit:
    """Findings about the rows of a study's newest snapshot.

    Attributes:
        study: the study's name.
        run: the newest run, which searches on the snapshot.
        found: what a person should look at.
        classes: labels by index.
        trials: numbers of the trials whose predictions were looked at.
        notes: what could not be looked at, for people.
    """

    study: str
    run: Run
    found: Issues
    classes: tuple[str, ...]
    trials: tuple[int, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document of `automl data issues`."""
        return {
            "schema": 1,
            "study": self.study,
            "snapshot": self.run.snapshot,
            "trials": list(self.trials),
            "judged": self.found.judged,
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
    auditor = card_of(run.task).auditor
    if not auditor:
        raise ConfigError(
            f"The rows of a study of the task {run.task} cannot be audited.",
            "its track has no audit; ask those who wrote it",
        )
    dataset = track_of(run.task).open(home.store, name, run.snapshot)
    sealed = {*dataset.parts(Use.GATE), *dataset.parts(Use.REPORT)}
    if any(each.test_opened and each.snapshot == run.snapshot for each in study.runs):
        sealed = set()
    rows: AuditedRows = load(auditor)(home.store, name, run.snapshot, sealed)
    predicted = mean_predictions(home.store, study.comparable(run), len(rows.classes))
    found = find_issues(rows, predicted.means)
    notes = tuple(_notes(rows, predicted, found))
    return Audit(name, run, found, rows.classes, predicted.trials, notes)


def _notes(rows: AuditedRows, predicted: OutOfSample, found: Issues) -> Iterator[str]:
    if not predicted.trials:
        yield "no trial has completed on this snapshot: likely label errors are not known yet"
    else:
        left = len(rows.paths) - found.judged
        yield (
            f"likely label errors are looked for among the {found.judged:,} rows that trials are "
            f"scored on; of the other {left:,}, which they learn from or which test them, there "
            "are no predictions out of sample"
        )
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
    yield from predicted.problems


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
