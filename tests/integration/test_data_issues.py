"""The command `automl data issues`, on a snapshot and with predictions of trials."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from automl.cli import app
from automl.data.findings import FindingKind
from automl.data.splits import Part
from automl.domain.candidate import Candidate
from automl.domain.events import TestOpened, TrialClaimed, TrialFinished, TrialOpened, TrialProposed
from automl.domain.settings import Settings
from automl.domain.trial import Measurement, Outcome
from automl.runs.context import StepContext
from automl.runs.opening import open_run
from automl.runs.run_lease import RunLease
from automl.runs.trial_files import _predictions
from automl.steps.prepare import prepare
from automl.steps.study_file import study_spec
from automl.storage.file import FileObjectStore
from automl.tracks.image.snapshot import ImageSnapshot
from automl.tracks.image.space import NetworkMorphismSpace
from automl.tracks.track import Fitted, Predictions
from tests.digits import digits
from tests.opened_runs import append
from tests.shown import AT

ROWS, CLASSES = 240, 3
FLIPPED = range(100, 124)
COPY, DARK = 50, 60  # a copy of row 40 with another label; a black row


@dataclass(frozen=True)
class Study:
    """A study whose data have known faults.

    Attributes:
        context: of its open run.
        snapshot: what that searches on.
        truth: index of the right class of each row of the source.
        folder: of the source.
    """

    context: StepContext
    snapshot: ImageSnapshot
    truth: NDArray[np.int64]
    folder: Path

    @property
    def home(self) -> str:
        return self.context.settings.home

    def row(self, path: str) -> int:
        return int(path.removeprefix("x[").removesuffix("]"))

    def finish_trial(self, number: int, sureness: float = 0.8) -> str:
        """Complete a trial that predicts the right class of held-out rows; return its folder."""
        keys = self.context.keys.trial(number, 1)
        fitted = Fitted(
            None, "", Measurement(), b"weights",
            judged=self._predicted(Part.SELECTION, sureness),
            calibration=self._predicted(Part.CALIBRATION, sureness),
        )  # fmt: skip
        self.context.store.put(keys.validation, _predictions(fitted))
        candidate: Candidate = NetworkMorphismSpace(8, CLASSES).seeds()[0]
        measured = Measurement(score=0.9, loss=-0.9, weights=keys.weights)
        run = self.context.run
        append(
            self.context,
            TrialOpened(at=AT, n=number, run=run, worker="w"),
            TrialProposed(at=AT, n=number, candidate=candidate, based_on=0, strategy="random"),
            TrialClaimed(at=AT, n=number, attempt=1, run=run, worker="w"),
            TrialFinished(
                at=AT, n=number, attempt=1, run=run, outcome=Outcome.COMPLETED, measurement=measured
            ),
        )
        return keys.folder

    def _predicted(self, part: Part, sureness: float) -> Predictions:
        rows = list(self.snapshot.files(part))
        right = [self.truth[self.row(row.path)] for row in rows]
        values = np.eye(CLASSES)[right] * sureness + (1 - sureness) / CLASSES
        labels = np.array([row.label for row in rows], np.int64)
        return Predictions([row.digest for row in rows], values.astype(np.float32), labels)

    def issues(self, *options: str) -> Any:
        done = CliRunner().invoke(
            app, ["data", "issues", "digits", "--home", self.home, "--json", *options]
        )
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)


def of_kind(document: Any, kind: str) -> list[dict[str, Any]]:
    return [issue for issue in document["issues"] if issue["kind"] == kind]


def prepared(folder: Path, run: str, **data: str) -> tuple[StepContext, ImageSnapshot]:
    spec = study_spec(
        {
            "name": "digits",
            "task": "image_classification",
            "data": {"source": str(folder / "rows.npz"), **data},
            "search": {"time_limit": "60s"},
        }
    )
    context = StepContext.open(Settings(str(folder / "home")), spec, run, "cli")
    envelope = prepare(context, lambda *_: None)
    return context, ImageSnapshot.open(context.store, "digits", envelope.id)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    x, y = digits(CLASSES)
    x, truth = x[:ROWS].copy(), y[:ROWS].astype(np.int64)
    labels = truth.copy()
    labels[list(FLIPPED)] = (truth[list(FLIPPED)] + 1) % CLASSES
    x[COPY], truth[COPY] = x[40], truth[40]
    labels[COPY] = (truth[40] + 1) % CLASSES
    x[DARK] = 0
    np.savez(tmp_path / "rows.npz", allow_pickle=False, x=x, y=labels)
    context, snapshot = prepared(tmp_path, "one")
    with RunLease(context):
        open_run(context, snapshot.envelope.id)
    return Study(context, snapshot, truth, tmp_path)


def part_of(study: Study, row: int) -> Part:
    for part in (Part.SELECTION, Part.CALIBRATION, Part.GATE, Part.REPORT):
        if f"x[{row}]" in {each.path for each in study.snapshot.files(part)}:
            return part
    return Part.TRAIN


def judged(study: Study, rows: Sequence[int]) -> set[str]:
    return {f"x[{row}]" for row in rows if part_of(study, row) in {"selection", "calibration"}}


def test_wrong_labels_of_judged_rows_are_told_with_the_right_ones(study: Study) -> None:
    study.finish_trial(0, 0.6)
    study.finish_trial(1)

    document = study.issues()

    found = of_kind(document, "label_error")
    wrong = judged(study, [*FLIPPED, *([COPY] if part_of(study, 40) is not Part.TRAIN else [])])
    assert wrong
    assert {each["path"] for each in found[: len(wrong)]} == wrong
    for each in found[: len(wrong)]:
        assert each["suggested"] == str(study.truth[study.row(each["path"])])
        assert each["note"].startswith("likely: probability 0.1")
    assert document["trials"] == [0, 1]
    assert document["judged"] == sum(
        study.snapshot.envelope.counts[part] for part in ("selection", "calibration")
    )
    assert sum(pair["rows"] for pair in document["confused"]) == len(wrong)
    assert "no predictions out of sample" in document["notes"][0]


def test_before_a_trial_has_completed_equal_and_odd_rows_are_told(study: Study) -> None:
    document = study.issues()

    assert document["notes"][0].startswith("no trial has completed")
    assert not of_kind(document, "label_error")
    assert f"x[{DARK}]" in {each["path"] for each in of_kind(document, "dark")}
    same = of_kind(document, "duplicate_with_other_label")
    if part_of(study, 40) not in {"gate", "report"}:
        assert {each["path"] for each in same} == {"x[40]", f"x[{COPY}]"}
        assert {each["related"] for each in same} == {"x[40]", f"x[{COPY}]"}


def test_labels_of_test_rows_are_sealed_until_a_run_has_opened_them(study: Study) -> None:
    def labels() -> set[str]:
        issues = study.issues()["issues"]
        return {each["label"] for each in issues if each["part"] in {"gate", "report"}}

    sealed = study.issues()
    before = labels()
    append(study.context, TestOpened(at=AT, run=study.context.run, version=1, rows=48))

    assert before <= {""}
    assert "48 sealed test rows" in sealed["notes"][-1]
    assert "" not in labels()
    assert not any("sealed" in note for note in study.issues()["notes"])


def test_predictions_that_are_gone_or_damaged_are_told_and_left_out(study: Study) -> None:
    study.finish_trial(0)
    for number, data in ((1, b"PK"), (2, None)):
        key = f"{study.finish_trial(number)}/validation.npz"
        study.context.store.delete(key)
        if data is not None:
            study.context.store.put(key, data)

    document = study.issues()

    assert document["trials"] == [0]
    assert [note[:52] for note in document["notes"][-2:]] == [
        "the predictions of trial 1 are left out: studies/dig",
        "the predictions of trial 2 are left out: There is no",
    ]


def test_the_table_of_issues_becomes_corrections_once_a_person_has_filled_it_in(
    study: Study,
) -> None:
    study.finish_trial(0)
    table = study.folder / "issues.csv"
    study.issues("--csv", str(table))
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    for row in rows:
        if row["kind"] == "label_error":
            row["action"] = "relabel"
        if row["kind"] == "dark" and row["path"] == f"x[{DARK}]":
            row["action"] = "drop"
    relabelled = [row for row in rows if row["action"] == "relabel"]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)

    _, after = prepared(study.folder, "two", corrections=str(table))

    counts = {finding.kind: finding.count for finding in after.envelope.findings}
    assert relabelled
    assert counts == {FindingKind.RELABELLED_ROWS: len(relabelled), FindingKind.DROPPED_ROWS: 1}
    assert after.envelope.id != study.snapshot.envelope.id


def test_the_table_goes_to_standard_output(study: Study) -> None:
    done = CliRunner().invoke(app, ["data", "issues", "digits", "--home", study.home, "--csv", "-"])

    header = "path,part,label,suggested,kind,score,related,note,action"
    assert done.stdout.splitlines()[0] == header
    assert f"x[{DARK}]," in done.stdout


def test_issues_are_shown_in_lines_for_people(study: Study) -> None:
    study.finish_trial(0)

    done = CliRunner().invoke(app, ["data", "issues", "digits", "--home", study.home])

    assert done.exit_code == 0
    assert done.stdout.startswith("label_error  ")
    assert f"snapshot {study.snapshot.envelope.id} of digits: " in done.stdout
    assert "note: likely label errors are looked for among" in done.stdout


def test_a_study_that_does_not_exist_is_named(tmp_path: Path) -> None:
    FileObjectStore(tmp_path / "home")

    done = CliRunner().invoke(app, ["data", "issues", "cress", "--home", str(tmp_path / "home")])

    assert done.exit_code == 2
    assert "There is no study 'cress'" in done.stderr
