"""The command `automl data issues`, on a snapshot and with predictions of trials."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from automl.cli import app
from automl.data.findings import FindingKind
from automl.data.splits import Part
from automl.domain.events import TestOpened
from automl.storage.file import FileObjectStore
from tests.faulty_data import COPY, DARK, FLIPPED, Study, faulty_study, prepared
from tests.opened_runs import append
from tests.shown import AT


def of_kind(document: Any, kind: str) -> list[dict[str, Any]]:
    return [issue for issue in document["issues"] if issue["kind"] == kind]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return faulty_study(tmp_path)


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
    assert document["cross_fit"] is None
    assert document["judged_by"] == {"trials": document["judged"], "cross_fit": 0}
    assert "there are no predictions out of sample: no run on this" in document["notes"][0]


def test_wrong_labels_of_training_rows_are_told_among_those_of_others_by_the_cross_fit(
    study: Study,
) -> None:
    study.finish_trial(0, 0.9)
    study.cross_fit("one", 0.5)

    document = study.issues()

    found, wrong = of_kind(document, "label_error"), {f"x[{row}]" for row in FLIPPED}
    wrong = {path for path in wrong if part_of(study, study.row(path)) not in {"gate", "report"}}
    assert wrong <= {each["path"] for each in found if each["note"].startswith("likely")}
    assert {each["part"] for each in found} > {"train"}
    counts = study.snapshot.envelope.counts
    held_out = counts[Part.SELECTION] + counts[Part.CALIBRATION]
    assert document["judged_by"] == {"trials": held_out, "cross_fit": counts[Part.TRAIN]}
    assert document["judged"] == held_out + counts[Part.TRAIN]
    assert (
        f"among {counts[Part.TRAIN]} training rows, by what run one predicted"
        in (document["notes"][0])
    )


def test_the_newest_cross_fit_that_can_be_read_counts_and_damage_is_told(study: Study) -> None:
    study.finish_trial(0)
    study.cross_fit("one", 0.2)
    assert study.issues()["cross_fit"] == "one"
    for run, is_damaged in (("two", False), ("three", True)):
        study = study.next_run(run)
        key = study.cross_fit(run, 0.5)
        if is_damaged:
            study.context.store.put(key, b"PK")

    document = study.issues()

    assert document["cross_fit"] == "two"
    assert document["notes"][-1].startswith("the cross-fit of run three is left out: studies/dig")


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
