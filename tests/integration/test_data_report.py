"""The data report and `automl data inspect`: when it is written, what it shows, how it looks."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from automl.cli import app
from automl.commands.data import _described
from automl.data.blocks import read_rows
from automl.data.exhibits import RowName, Wanted
from automl.data.files import SourceStore
from automl.data.splits import PARTS, Part
from automl.data.texts import Texts
from automl.doctor.data_issues import Audited
from automl.doctor.data_page import build_page
from automl.doctor.data_report import Inspected, keep_report
from automl.domain.card import Card
from automl.domain.events import RunState, TestOpened
from automl.domain.settings import Settings
from automl.domain.training import CurvePoint
from automl.errors import DamagedDataError, StorageError
from automl.publishing.report import ReportContent, build_report
from automl.runs.context import StepContext
from automl.runs.opening import close_run, open_run
from automl.runs.run_lease import RunLease
from automl.steps.prepare import prepare
from automl.steps.study_file import study_spec
from automl.storage.file import FileObjectStore
from automl.storage.memory import MemoryObjectStore
from automl.tracks.cards import installed_cards
from automl.tracks.image.card import CARD
from automl.tracks.image.exhibits import _named, exhibits, picture
from automl.tracks.image.index import OPEN, RowIndex
from automl.tracks.track import Table, track_of
from tests import inspections
from tests.chromium import Chromium, find_chromium
from tests.faulty_data import CLASSES, DARK, Study, faulty_study, prepared
from tests.opened_runs import append
from tests.shown import AT

INSTALLED = Path(__file__).parents[1] / "installed"
OLDER = Path(__file__).parents[1] / "unit/golden/snapshot-1"
WIDTHS = (1280, 400)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return faulty_study(tmp_path_factory.mktemp("faulty"))


@pytest.fixture
def study(made: Study, tmp_path: Path) -> Study:
    return made.copy(tmp_path)


def report_of(study: Study) -> Path:
    return Path(study.home) / study.snapshot.envelope.keys.report


def shown_paths(report: Path) -> set[str]:
    """Return the names of the rows that a report has pictures of."""
    return set(re.findall(r'<img src="data:[^"]+" alt="([^",]+)', report.read_text()))


def told(arguments: list[str]) -> str:
    done = CliRunner().invoke(app, ["data", "inspect", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(arguments: list[str]) -> str:
    done = CliRunner().invoke(app, ["data", "inspect", *arguments])
    assert done.exit_code == 2
    return done.stderr


def test_preparation_writes_a_report_and_does_not_write_it_again(study: Study) -> None:
    report = report_of(study)
    assert "Data of digits" in report.read_text()
    report.write_text("kept")

    prepare(study.context, lambda *_: None)

    assert report.read_text() == "kept"
    report.unlink()
    prepare(study.context, lambda *_: None)
    assert "Data of digits" in report.read_text()


def test_equal_inspections_have_equal_pages(study: Study) -> None:
    report = report_of(study)
    before = report.read_bytes()
    report.unlink()

    study.document("inspect", "digits")

    assert report.read_bytes() == before


def test_inspection_tells_what_a_snapshot_holds(study: Study) -> None:
    document = study.document("inspect", "digits")
    envelope = study.snapshot.envelope

    assert (document["schema"], document["dataset"]) == (1, "digits")
    assert document["snapshot"] == envelope.id
    assert document["task"] == "image_classification"
    assert document["counts"] == envelope.counts
    assert document["rows"] == sum(envelope.counts.values())
    assert document["facts"]["image size"].startswith("8 px, ")
    assert [each["label"] for each in document["classes"]] == list(envelope.classes)
    for each in document["classes"]:
        assert each["parts"] == envelope.counts_per_class[each["label"]]
        assert each["rows"] == sum(each["parts"].values())
    assert document["statistics"]["height"]["quantiles"]["0.5"][0] == 8.0
    assert document["statistics"]["brightness"]["rows"] == document["rows"]
    assert document["copies"] == 1
    assert document["issues"]["counts"]["dark"] == 1
    assert document["sealed"] == ["gate", "report"]
    assert (document["before"], document["changes"]) == (None, [])
    assert document["excluded"]["rows"] == len(envelope.excluded)
    assert document["report"] == str(report_of(study))


def test_inspection_is_short_for_people(study: Study) -> None:
    lines = told(["digits", "--home", study.home]).splitlines()

    assert lines[0].startswith(f"snapshot {study.snapshot.envelope.id} of digits: ")
    assert lines[-1] == f"report: {report_of(study)}"
    assert any(line.startswith("! rows that are equal to rows with other labels") for line in lines)


def test_the_description_of_any_snapshot_has_few_short_lines() -> None:
    inspection = inspections.extreme()
    lines = list(_described(Inspected(inspection, "report.html", "it is stale").to_json()))

    assert len(lines) < 40
    assert sum(line[:1] in "!-" for line in lines) == 20
    assert f"and {len(inspection.problems()) - 20:,} more: --json has all of them" in lines


def test_a_report_is_written_again_once_trials_predict(study: Study) -> None:
    before = report_of(study).read_bytes()
    study.document("inspect", "digits")
    assert report_of(study).read_bytes() == before

    study.finish_trial(0)
    study.document("inspect", "digits")

    text = report_of(study).read_text()
    assert "Rows that may be labelled wrong" in text
    assert "Classes that are often confused" in text
    assert "Rows that may be labelled wrong" not in before.decode()


def test_sealed_rows_are_not_shown_before_a_run_opens_them(study: Study) -> None:
    parts = {
        row.path: part for part in (Part.GATE, Part.REPORT) for row in study.snapshot.files(part)
    }
    study.finish_trial(0)
    study.document("inspect", "digits")
    shown = shown_paths(report_of(study))
    assert shown
    assert not shown & parts.keys()
    assert f"x[{DARK}]" in parts  # a row to look at, whose label is not told
    assert "sealed label" in report_of(study).read_text()

    append(study.context, TestOpened(at=AT, run=study.context.run, version=1, rows=48))
    study.document("inspect", "digits")

    assert f"x[{DARK}]" in shown_paths(report_of(study))
    assert "sealed label" not in report_of(study).read_text()


def test_a_report_compares_with_the_run_before(made: Study, study: Study) -> None:
    first = study.snapshot.envelope.id
    with RunLease(study.context):
        close_run(study.context, RunState.FAILED, "a test")
    rows = np.load(made.folder / "rows.npz")
    kept = rows["y"] != 2
    np.savez(study.folder / "rows.npz", x=rows["x"][kept], y=rows["y"][kept])

    _, second = prepared(study.folder, "two")

    text = (Path(study.home) / second.envelope.keys.report).read_text()
    assert "1 class is gone, of 3" in text.replace("&#x27;", "'")
    assert f"<code>{first}</code>, the one before" in text
    document = study.document("inspect", f"digits@{second.envelope.id}")
    assert document["before"] == first
    assert document["problems"][0]["topic"] == "changes"
    assert document["changes"][0]["kind"] == "vanished_classes"
    newest = study.document("inspect", "digits")  # that of the newest run
    assert newest["snapshot"] == first
    assert any(f"digits@{second.envelope.id}" in note for note in newest["notes"])


def test_the_newest_snapshot_is_inspected_before_any_run(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (90, 8, 8, 3)).astype(np.uint8), np.arange(90) % CLASSES
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    context, snapshot = prepared(tmp_path, "one")
    store, home = context.store, ["--home", str(tmp_path / "home")]

    assert f"snapshot {snapshot.envelope.id} of digits" in told(["digits", *home])
    store.delete(snapshot.envelope.keys.report)
    assert "image size: 8 px" in told(["digits", *home])
    assert "<img" in store.get(snapshot.envelope.keys.report).data.decode()


@pytest.mark.parametrize("dataset", ["nothing", "/data/images", "s3://bucket/images", "../digits"])
def test_what_is_not_prepared_is_refused_with_the_remedy(study: Study, dataset: str) -> None:
    said = refused([dataset, "--home", study.home])

    assert f"There is no prepared dataset {dataset!r}" in said
    assert "`automl check STUDY.yaml`" in said
    assert "`automl run STUDY.yaml`" in said
    assert "known here: digits" in said


@pytest.mark.parametrize("snapshot", ["0123", "../x", "sources"])
def test_an_unknown_snapshot_is_refused_with_those_that_are_known(
    study: Study, snapshot: str
) -> None:
    said = refused([f"digits@{snapshot}", "--home", study.home])

    assert f"There is no snapshot {snapshot!r} of digits" in said
    assert study.snapshot.envelope.id in said


def test_a_home_that_cannot_be_written_is_inspected_all_the_same(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: FileObjectStore, key: str, data: bytes) -> str:
        raise StorageError(f"{key} cannot be written.", "")

    study.finish_trial(0)
    monkeypatch.setattr(FileObjectStore, "put", refuse)

    document = study.document("inspect", "digits")

    assert "cannot be written" in document["report_problem"]
    assert document["report"] == str(report_of(study))  # the stale one


def broken(store: SourceStore, dataset: str, snapshot: str, wanted: Wanted) -> Any:
    raise ZeroDivisionError(dataset)


def test_a_report_that_fails_is_a_warning_with_its_reason(
    study: Study, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    envelope, context = study.snapshot.envelope, study.context
    report_of(study).unlink()
    block = Path(study.home) / envelope.blocks[0].key
    whole = block.read_bytes()
    block.write_bytes(b"\xff" * 100)
    audited = Audited("digits", envelope.id, context.spec.task)
    caplog.set_level(logging.WARNING)

    keep_report(context.home, context.record.refresh(), audited)
    assert f"the data report was not written: {envelope.blocks[0].key}" in caplog.text

    block.write_bytes(whole)
    card = Card(**{**{n: getattr(CARD, n) for n in CARD.__slots__}, "exhibitor": f"{__name__}:x"})
    monkeypatch.setattr("automl.doctor.inspection.card_of", lambda _: card)
    monkeypatch.setattr("automl.doctor.inspection.load", lambda _: broken)
    keep_report(context.home, context.record.refresh(), audited)
    assert "ZeroDivisionError: digits" in caplog.text
    assert not report_of(study).exists()


def test_few_rows_are_read_and_no_others(study: Study) -> None:
    envelope = study.snapshot.envelope
    asked: list[tuple[str, int]] = []

    class Watched(FileObjectStore):
        def get_range(self, key: str, start: int, size_bytes: int) -> bytes:
            asked.append((key, size_bytes))
            return super().get_range(key, start, size_bytes)

        def get(self, key: str) -> Any:
            assert "/images-" not in key
            return super().get(key)

    sealed = frozenset({"gate", "report"})
    wanted = Wanted(labels=("0", "1"), per_label=3, sealed=sealed)
    found = exhibits(Watched(Path(study.home)), "digits", envelope.id, wanted)

    assert {label: len(rows) for label, rows in found.samples.items()} == {"0": 3, "1": 3}
    pixels = [size for key, size in asked if size == envelope.image_size**2 * 3]
    assert len(pixels) == 6
    assert len(asked) <= 6 + len(envelope.blocks)


def test_pictures_are_those_of_the_rows(study: Study) -> None:
    envelope = study.snapshot.envelope
    images, labels = study.snapshot.tensors(*OPEN)
    of_uri = {picture(image): int(label) for image, label in zip(images, labels, strict=True)}
    store = FileObjectStore(Path(study.home))
    wanted = Wanted(envelope.classes, 4, sealed=frozenset({"gate", "report"}))

    found = exhibits(store, "digits", envelope.id, wanted)

    for label, rows in found.samples.items():
        for row in rows:
            assert row.name.part == "train"
            assert envelope.classes[of_uri[row.uri]] == label


def test_a_row_whose_name_is_not_certain_has_no_picture() -> None:
    index = RowIndex(
        parts=np.array([PARTS.index(Part.TRAIN), PARTS.index(Part.SELECTION)], np.uint8),
        labels=np.zeros(2, np.int64),
        digests=np.arange(64, dtype=np.uint8).reshape(2, 32),
        images=np.zeros((2, 2), np.int32),
        files=np.zeros((2, 2), np.int32),
        paths=Texts.of(["a.png", "a.png"]),
    )
    names = [RowName("a.png"), RowName("a.png", "selection"), RowName("a.png", "gate")]

    assert list(_named(index, names)) == [(names[1], 1)]


def test_a_snapshot_of_an_earlier_release_is_told_without_reading_its_rows(tmp_path: Path) -> None:
    shutil.copytree(OLDER, tmp_path / "home")
    for shard in (tmp_path / "home").rglob("*.safetensors"):
        shard.unlink()
    (envelope,) = (tmp_path / "home").rglob("manifest.json")
    store, snapshot = FileObjectStore(tmp_path / "home"), envelope.parent.name

    found = exhibits(store, "pictures", snapshot, Wanted(labels=("cat",), per_label=5))

    assert not found.samples
    assert found.notes == (
        "An earlier release made this snapshot: the next one is shown in pictures, too.",
    )
    page = build_page(replace(inspections.plain(), exhibits=found), found, {}).decode()
    assert found.notes[0] in page


@pytest.mark.parametrize("damage", ["empty", "header", "other", "dtype"])
def test_rows_of_a_damaged_block_are_refused(study: Study, damage: str) -> None:
    block, store = study.snapshot.envelope.blocks[0], MemoryObjectStore()
    data = (Path(study.home) / block.key).read_bytes()
    store.put(
        block.key,
        {
            "empty": b"",
            "header": data[:20],
            "other": b"\xff" * len(data),
            "dtype": data.replace(b'"U8"', b'"I8"'),
        }[damage],
    )

    with pytest.raises(DamagedDataError, match=re.escape(block.key)):
        read_rows(store, block, "images", [0])


@pytest.fixture
def numeric_track(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install the second track."""
    monkeypatch.syspath_prepend(str(INSTALLED))
    for cached in (installed_cards, track_of):
        cached.cache_clear()
    yield
    monkeypatch.undo()
    for cached in (installed_cards, track_of):
        cached.cache_clear()


@pytest.mark.usefixtures("numeric_track")
def test_a_track_without_pictures_has_a_report(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [f"{a},{b},{a - b}" for a, b in rng.normal(size=(80, 2)).round(3)]
    (tmp_path / "rows.csv").write_text("\n".join(["a,b,label", *lines]))
    document = {
        "name": "numbers",
        "task": "numeric_regression",
        "data": {"source": str(tmp_path / "rows.csv"), "label": "label"},
        "search": {"time_limit": "60s"},
    }
    home = str(tmp_path / "home")
    context = StepContext.open(Settings(home), study_spec(document), "one", "cli")
    envelope = prepare(context, lambda *_: None)
    text = context.store.get(envelope.keys.report).data.decode()

    assert text.count("<svg") == 3
    assert "all rows" in text
    lines = told(["numbers", "--home", home]).splitlines()
    assert any(line.startswith("note: no run was opened yet") for line in lines)
    assert context.store.get(envelope.keys.report).data.decode() == text  # the track was known

    with RunLease(context):
        open_run(context, envelope.id)
    lines = told(["numbers", "--home", home]).splitlines()
    assert any("the track of the task has no audit" in line for line in lines)


@pytest.mark.needs_browser
def test_a_browser_shows_reports_at_any_width_and_has_no_complaint(
    study: Study, tmp_path: Path
) -> None:
    study.finish_trial(0)
    study.document("inspect", "digits")
    odd = inspections.extreme()
    pictures = inspections.exhibits(odd, picture(np.zeros((64, 64, 3), np.uint8)))
    extreme, plain = tmp_path / "extreme.html", tmp_path / "plain.html"
    extreme.write_bytes(build_page(odd, pictures, {}))
    plain.write_bytes(build_page(inspections.plain(), inspections.plain().exhibits, {}))
    version = tmp_path / "version.html"
    wide = [{f"column {n} {'W' * 40}": n for n in range(40)}]
    version.write_bytes(
        build_report(
            ReportContent(
                title="W" * 200, summary={"W" * 90: "W" * 200}, metrics={},
                tables=[Table("Errors", "", wide)], curve=[CurvePoint(0, 0.5, 0.5)] * 3,
                portrait="W" * 900, leaderboard=wide, strategies=wide,
            )
        )
    )  # fmt: skip
    binary = find_chromium()
    assert binary is not None

    with Chromium(binary) as browser:
        for path in (report_of(study), extreme, plain, version):
            for width in WIDTHS:
                page = browser.open(path, width)
                assert page.evaluate("innerWidth") == width
                assert page.overflowing() == [], path
                assert page.complaints == []
                assert page.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
                assert page.evaluate("performance.getEntriesByType('resource').length") == 0


@pytest.mark.needs_browser
def test_a_browser_that_has_something_to_complain_of_is_heard(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        "<!doctype html><meta name=viewport content='width=device-width'><body>"
        "<script>console.error('oh')</script><img src='http://192.0.2.1/x.png'>"
        "<div style='width:3000px'>wide</div>"
    )
    binary = find_chromium()
    assert binary is not None

    with Chromium(binary) as browser:
        shown = browser.open(page, 400)
        assert shown.overflowing()[0] == "the page"
        assert any("oh" in complaint for complaint in shown.complaints)
        assert any("192.0.2.1" in complaint for complaint in shown.complaints)
