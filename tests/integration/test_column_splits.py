"""Snapshots of sources whose rows are held out by a column, and of those with an own test set."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automl.data.assignment import TEST
from automl.data.findings import FindingKind
from automl.data.splits import OWN_TEST_SET, PARTS, Part
from automl.domain.settings import Settings
from automl.domain.specification import SmallClasses, Split
from automl.errors import ConfigError, DataError
from automl.runs.context import StepContext
from automl.steps.prepare import prepare
from automl.steps.study_file import study_spec
from automl.storage.file import FileObjectStore
from automl.tracks.image.decode import encode_png
from automl.tracks.image.index import read_index
from automl.tracks.image.prepare import prepare_images
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.snapshot import ImageEnvelope
from automl.tracks.image.tables import FurtherColumn
from tests.local import here

TESTS = frozenset({Part.GATE, Part.REPORT})
FARM = FurtherColumn("farm", "data.group")
DAY = FurtherColumn("day", "data.time")


@pytest.fixture
def home(tmp_path: Path) -> FileObjectStore:
    return FileObjectStore(tmp_path / "home")


def picture(number: int) -> bytes:
    rng = np.random.default_rng(number)
    return encode_png(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8))


Line = tuple[str, str, str, int]  # name, label, value of the further column, picture


def write_table(folder: Path, key: str, lines: Sequence[Line], column: str = "") -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["path", "label", *filter(None, [column])])
    for name, label, value, number in lines:
        (folder / "images" / name).write_bytes(picture(number))
        writer.writerow([name, label, *([value] if column else [])])
    (folder / key).write_text(text.getvalue())


def lines(n: int, start: int = 0) -> list[Line]:
    return [
        (f"{i:03d}.png", "ab"[i % 2], f"2026-02-{1 + i // 10:02d}", i)
        for i in range(start, start + n)
    ]


def renamed(prefix: str, rows: Sequence[Line]) -> list[Line]:
    return [(prefix + name, label, value, number) for name, label, value, number in rows]


def asked(folder: Path, **changes: Any) -> ImageRequest:
    store = FileObjectStore(folder)
    return replace(ImageRequest("pictures", store, "train.csv", store, "images"), **changes)


def prepared(request: ImageRequest, home: FileObjectStore) -> ImageEnvelope:
    return prepare_images(request, home, here())


def parts_of(home: FileObjectStore, envelope: ImageEnvelope) -> dict[str, Part]:
    """Return the part of each row, by its path."""
    index = read_index(home, envelope, PARTS)
    return {path: PARTS[part] for path, part in zip(index.paths, index.parts, strict=True)}


@pytest.mark.parametrize(
    ("split", "further"),
    [(Split.STRATIFIED, None), (Split.RANDOM, None), (Split.GROUP, FARM), (Split.TIME, DAY)],
)
def test_no_row_moves_when_a_tenth_comes_a_twentieth_goes_and_all_are_renamed_and_shuffled(
    tmp_path: Path, home: FileObjectStore, split: Split, further: FurtherColumn | None
) -> None:
    rng = random.Random(7)  # noqa: S311 - a fixed choice
    column = further.name if further else ""
    copies = renamed("copy-", rng.sample(lines(200), 10))
    write_table(tmp_path, "train.csv", [*lines(200), *copies], column)
    request = asked(tmp_path, split=split, further=further)
    first = prepared(request, home)

    stay = rng.sample([*lines(200), *copies], 200)  # of 210
    again = renamed("again-", rng.sample(stay, 5))
    second_lines = renamed("new/", [*stay, *lines(15, 200), *again])
    (tmp_path / "images" / "new").mkdir()
    rng.shuffle(second_lines)
    write_table(tmp_path, "train.csv", second_lines, column)
    second = prepared(replace(request, thresholds=first.thresholds), home)

    before, after = parts_of(home, first), parts_of(home, second)
    assert set(before.values()) == set(Part)
    assert len(after) == len(second_lines)  # copies have the same group and time: all are kept
    assert {name: after[f"new/{name}"] for name, *_ in stay} == {
        name: before[name] for name, *_ in stay
    }
    for parts, rows in ((before, [*lines(200), *copies]), (after, second_lines)):
        of_picture: dict[int, set[Part]] = {}
        for name, _, _, number in rows:
            of_picture.setdefault(number, set()).add(parts[name])
        assert all(len(found) == 1 for found in of_picture.values())


# --- by a column ---


def test_groups_are_whole_and_stay_where_they_are(tmp_path: Path, home: FileObjectStore) -> None:
    write_table(tmp_path, "train.csv", lines(200), "farm")
    request = asked(tmp_path, split=Split.GROUP, further=FARM)
    first = prepared(request, home)
    grown = [*lines(20, 300), *reversed(lines(190, 10))]
    write_table(tmp_path, "train.csv", grown, "farm")

    second = prepared(replace(request, thresholds=first.thresholds), home)

    before, after = parts_of(home, first), parts_of(home, second)
    assert set(before.values()) == set(Part)
    assert {path: part for path, part in after.items() if path in before} == {
        path: part for path, part in before.items() if path in after
    }
    for parts, rows in ((before, lines(200)), (after, grown)):
        farms: dict[str, set[Part]] = {}
        for path, _, farm, _ in rows:
            farms.setdefault(farm, set()).add(parts[path])
        assert all(len(found) == 1 for found in farms.values())
    assert second.thresholds == first.thresholds
    assert second.id != first.id


def test_another_grouping_of_the_same_rows_is_another_snapshot(
    tmp_path: Path, home: FileObjectStore
) -> None:
    write_table(tmp_path, "train.csv", lines(200), "farm")
    request = asked(tmp_path, split=Split.GROUP, further=FARM)
    first = prepared(request, home)
    farms = [farm for _, _, farm, _ in lines(200)]
    regrouped = [(name, label, farms[i - 10], i) for name, label, _, i in lines(200)]
    write_table(tmp_path, "train.csv", regrouped, "farm")

    second = prepared(replace(request, thresholds=first.thresholds), home)

    assert second.id != first.id
    assert parts_of(home, second) != parts_of(home, first)


def test_a_picture_that_comes_back_in_another_group_is_left_out_where_it_is_held_out(
    tmp_path: Path, home: FileObjectStore
) -> None:
    write_table(tmp_path, "train.csv", lines(200), "farm")
    request = asked(tmp_path, split=Split.GROUP, further=FARM)
    first = prepared(request, home)
    parts = parts_of(home, first)
    learnt = next(line for line in lines(200) if parts[line[0]] is Part.TRAIN)
    tested = next(line for line in lines(200) if parts[line[0]] in TESTS)
    copy: Line = ("copy.png", "a", tested[2], learnt[3])
    new: Line = ("new.png", "a", learnt[2], 900)
    write_table(tmp_path, "train.csv", [*lines(200), copy, new], "farm")

    second = prepared(replace(request, thresholds=first.thresholds), home)

    (left_out,) = second.quarantined
    assert left_out.path == "copy.png"
    assert left_out.reason == (
        f"its group {tested[2]} is held out, and the same picture {learnt[0]} of group "
        f"{learnt[2]} is in train"
    )
    assert parts_of(home, second) == {**parts, "new.png": Part.TRAIN}


def test_the_newest_rows_are_held_out_and_the_log_fixes_since_when(
    tmp_path: Path, home: FileObjectStore
) -> None:
    write_table(tmp_path, "train.csv", lines(200), "day")
    request = asked(tmp_path, split=Split.TIME, further=DAY)
    first = prepared(request, home)
    write_table(tmp_path, "train.csv", [*lines(200), *lines(30, 200)], "day")

    second = prepared(replace(request, thresholds=first.thresholds), home)

    before, after = parts_of(home, first), parts_of(home, second)
    days = {path: day for path, _, day, _ in lines(230)}
    tested = [days[path] for path, part in before.items() if part in TESTS]
    learnt = [days[path] for path, part in before.items() if part is Part.TRAIN]
    assert (min(tested), max(learnt)) == ("2026-02-17", "2026-02-12")
    assert {path: after[path] for path in before} == before
    assert {after[path] for path, _, _, _ in lines(30, 200)} <= TESTS
    assert first.thresholds[TEST][0] == 1771286400  # 2026-02-17


def test_classes_that_nothing_can_learn_or_judge_are_told(
    tmp_path: Path, home: FileObjectStore
) -> None:
    rows = [(n, "new" if i >= 190 else "old" if i < 10 else label, day, i)
            for n, label, day, i in lines(200)]  # fmt: skip
    write_table(tmp_path, "train.csv", rows, "day")

    envelope = prepared(asked(tmp_path, split=Split.TIME, further=DAY), home)

    found = {finding.kind: finding for finding in envelope.findings}
    assert found[FindingKind.UNTRAINED_CLASSES].examples == ("new",)
    assert found[FindingKind.UNTESTED_CLASSES].examples == ("old",)


def test_rows_without_a_value_are_bad_and_times_that_are_none_stop_the_run(
    tmp_path: Path, home: FileObjectStore
) -> None:
    rows: list[Line] = [*lines(100), ("blank.png", "a", " ", 500)]
    write_table(tmp_path, "train.csv", rows, "day")
    request = asked(tmp_path, split=Split.TIME, further=DAY)

    envelope = prepared(request, home)

    (bad,) = envelope.quarantined
    assert (bad.path, bad.reason) == ("blank.png", "the row has no value in the column 'day'")
    write_table(tmp_path, "train.csv", [*rows, ("odd.png", "a", "May", 501)], "day")
    with pytest.raises(DataError, match=r"data\.time") as caught:
        prepared(request, home)
    assert [(each.path, each.message) for each in caught.value.problems] == [
        ("odd.png", "'May' is no time")
    ]


@pytest.mark.parametrize("form", ["folders", "npz"])
def test_sources_without_columns_are_refused_with_the_remedy(
    tmp_path: Path, home: FileObjectStore, form: str
) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a" / "0.png").write_bytes(picture(0))
    np.savez(tmp_path / "in.npz", x=np.zeros((4, 5, 5), np.uint8), y=np.array([0, 1, 0, 1]))
    key = "in" if form == "folders" else "in.npz"
    request = ImageRequest(
        "pictures", FileObjectStore(tmp_path), key, further=FARM, split=Split.GROUP
    )

    with pytest.raises(DataError, match=r"has no columns, and data\.group names") as caught:
        prepared(request, home)

    assert (
        "use a manifest (.csv, .tsv, .jsonl, .ndjson, .parquet, .pq) with that column"
        in caught.value.hint
    )


def test_a_column_that_is_missing_is_named(tmp_path: Path, home: FileObjectStore) -> None:
    write_table(tmp_path, "train.csv", lines(20))

    with pytest.raises(DataError, match=r"no 'farm'\. Hint: .* correct data\.group"):
        prepared(asked(tmp_path, split=Split.GROUP, further=FARM), home)


# --- an own test set ---


def with_tests(folder: Path, tests: Sequence[Line], **changes: Any) -> ImageRequest:
    write_table(folder, "test.csv", tests)
    own = (FileObjectStore(folder), "test.csv")
    return asked(folder, test=own, test_fraction=0.0, **changes)


def test_an_own_test_set_is_gate_and_report_and_nothing_else_is(
    tmp_path: Path, home: FileObjectStore
) -> None:
    write_table(tmp_path, "train.csv", lines(100))

    envelope = prepared(with_tests(tmp_path, lines(41, 500)), home)

    parts = parts_of(home, envelope)
    assert {path for path, part in parts.items() if part in TESTS} == {
        path for path, *_ in lines(41, 500)
    }
    assert envelope.counts == {
        "report": 20, "gate": 21, "calibration": 5, "selection": 15, "train": 80,
    }  # fmt: skip
    assert envelope.test_source == f"{tmp_path}/test.csv"
    assert not envelope.findings  # the images of either are in rows of the other
    assert not envelope.quarantined


def test_rows_of_an_own_test_set_keep_their_halves(tmp_path: Path, home: FileObjectStore) -> None:
    write_table(tmp_path, "train.csv", lines(100))
    first = prepared(with_tests(tmp_path, lines(40, 500)), home)
    request = with_tests(tmp_path, lines(80, 510))

    second = prepared(replace(request, thresholds=first.thresholds), home)

    before, after = parts_of(home, first), parts_of(home, second)
    kept = before.keys() & after.keys()
    assert len(kept) == 130
    assert {path: before[path] for path in kept} == {path: after[path] for path in kept}
    assert second.thresholds[OWN_TEST_SET] == first.thresholds[OWN_TEST_SET]
    again = prepared(replace(request, thresholds=first.thresholds), home)
    assert (again.id, again.reused) == (second.id, True)
    assert second.id != first.id


def test_a_picture_of_the_test_set_is_not_learnt_from(
    tmp_path: Path, home: FileObjectStore
) -> None:
    write_table(tmp_path, "train.csv", [*lines(100), ("leak.png", "b", "", 500)])

    envelope = prepared(with_tests(tmp_path, lines(40, 500)), home)

    (left_out,) = envelope.quarantined
    assert left_out.path == "leak.png"
    assert left_out.reason == "the same picture is in data.test_source: 500.png"
    assert parts_of(home, envelope)["500.png"] in TESTS
    assert sum(envelope.counts.values()) == 140


def test_the_same_rows_with_other_tests_are_another_snapshot(
    tmp_path: Path, home: FileObjectStore
) -> None:
    write_table(tmp_path, "train.csv", lines(100))

    ids = {prepared(with_tests(tmp_path, lines(n, 500)), home).id for n in (40, 41)} | {
        prepared(asked(tmp_path, test_fraction=0.0), home).id
    }

    assert len(ids) == 3


def test_labels_that_only_the_test_set_has_are_refused(
    tmp_path: Path, home: FileObjectStore
) -> None:
    write_table(tmp_path, "train.csv", lines(100))
    tests: list[Line] = [*lines(40, 500), ("c.png", "c", "", 600), ("d.png", "d", "", 601)]

    with pytest.raises(DataError, match=r"test\.csv has 2 labels that no usable row") as caught:
        prepared(with_tests(tmp_path, tests), home)

    assert [problem.path for problem in caught.value.problems] == ["c", "d"]
    assert "such as c.png" in caught.value.problems[0].message
    assert not list(home.list(""))


def test_classes_without_test_rows_are_told(tmp_path: Path, home: FileObjectStore) -> None:
    rare: list[Line] = [(f"c{n}.png", "c", "", 700 + n) for n in range(4)]
    write_table(tmp_path, "train.csv", [*lines(100), *rare])

    envelope = prepared(with_tests(tmp_path, lines(40, 500)), home)

    (finding,) = envelope.findings
    assert (finding.kind, finding.examples) == (FindingKind.UNTESTED_CLASSES, ("c",))


def test_test_rows_of_a_class_that_is_too_small_go_with_it(
    tmp_path: Path, home: FileObjectStore
) -> None:
    rare: list[Line] = [(f"c{n}.png", "c", "", 700 + n) for n in range(4)]
    write_table(tmp_path, "train.csv", [*lines(100), *rare[:2]])

    request = with_tests(tmp_path, [*lines(40, 500), *rare[2:]], small_classes=SmallClasses.DROP)
    envelope = prepared(request, home)

    assert envelope.classes == ("a", "b")
    assert [row.path for row in envelope.quarantined] == [f"c{n}.png" for n in range(4)]


def test_bad_rows_of_either_source_count_by_themselves(
    tmp_path: Path, home: FileObjectStore
) -> None:
    write_table(tmp_path, "train.csv", lines(100))
    request = with_tests(tmp_path, lines(40, 500))
    for name in ("500.png", "501.png", "502.png"):  # 2 % of all rows, 8 % of the test rows
        (tmp_path / "images" / name).write_bytes(b"")

    with pytest.raises(DataError, match=r"3 of the 40 rows of .*/test\.csv cannot be used"):
        prepared(request, home)

    allowed = prepared(replace(request, max_bad_fraction=0.1), home)
    assert [row.path for row in allowed.quarantined] == ["500.png", "501.png", "502.png"]


def test_an_own_test_set_may_have_another_form(tmp_path: Path, home: FileObjectStore) -> None:
    write_table(tmp_path, "train.csv", lines(100))
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (30, 7, 9), np.uint8)
    np.savez(tmp_path / "test.npz", x=images, y=np.array(["a", "b"] * 15))
    request = asked(tmp_path, test=(FileObjectStore(tmp_path), "test.npz"), test_fraction=0.0)

    envelope = prepared(request, home)

    assert (envelope.counts["gate"], envelope.counts["report"]) == (15, 15)
    parts = parts_of(home, envelope)
    assert {path for path, part in parts.items() if part in TESTS} == {f"x[{n}]" for n in range(30)}


# --- by the study file ---


def study(folder: Path, **data: Any) -> StepContext:
    document = {
        "name": "pictures",
        "task": "image_classification",
        "data": {"source": str(folder / "train.csv"), "images": str(folder / "images"), **data},
    }
    spec = study_spec(document)
    return StepContext.open(Settings(str(folder / "home")), spec, "one", "test")


def test_a_study_file_names_the_column_and_the_test_set(tmp_path: Path) -> None:
    write_table(tmp_path, "train.csv", lines(100), "farm")
    write_table(tmp_path, "test.csv", lines(20, 500))
    tests = {"test_source": str(tmp_path / "test.csv"), "test_fraction": 0.0}

    by_group = prepare(study(tmp_path, split="group", group="farm"), lambda *_: None)
    by_time = prepare(study(tmp_path, split="time", time="farm", **tests), lambda *_: None)

    assert isinstance(by_group, ImageEnvelope)
    assert by_group.test_source is None
    assert isinstance(by_time, ImageEnvelope)
    assert by_time.test_source == f"{tmp_path}/test.csv"
    assert by_time.counts["gate"] + by_time.counts["report"] == 20


def test_a_test_set_that_may_not_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(tmp_path / "in", "train.csv", lines(20))
    write_table(tmp_path / "out", "test.csv", lines(20, 500))
    monkeypatch.setenv("AUTOML_SOURCES", str(tmp_path / "in"))
    tests = {"test_source": str(tmp_path / "out" / "test.csv"), "test_fraction": 0.0}
    context = study(tmp_path / "in", **tests)
    closed = replace(context, settings=Settings.from_environment(home=str(tmp_path / "home")))

    with pytest.raises(ConfigError, match="outside the places that studies may read"):
        prepare(closed, lambda *_: None)
