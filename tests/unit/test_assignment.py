"""Splits by group and by time: what holds whatever rows come and go."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl.data.assignment import (
    GROUPS,
    LEFT_OUT,
    TEST,
    VALIDATION,
    Assignment,
    SplitRows,
    assign_parts,
)
from automl.data.digest_index import digests
from automl.data.splits import PARTS, Part, SplitSettings
from automl.data.texts import Coded
from automl.domain.specification import Split
from automl.errors import DataError

GROUP = SplitSettings(Split.GROUP, validation_fraction=0.2, test_fraction=0.2, seed=3)
TIME = SplitSettings(Split.TIME, validation_fraction=0.2, test_fraction=0.2, seed=3)
TESTS = {Part.GATE, Part.REPORT}
VALIDATIONS = {Part.CALIBRATION, Part.SELECTION}


@dataclass(frozen=True)
class Row:
    """A row, whatever its name is at present."""

    number: int
    picture: int
    value: str


Parts = Mapping[Row, Part | None]


def assigned(
    rows: Sequence[Row],
    split: SplitSettings,
    fixed: Mapping[str, Sequence[float]] | None = None,
    name: str = "",
) -> tuple[Parts, Assignment]:
    asked = SplitRows(
        names=[f"{name}{row.number}.png" for row in rows],
        digests=digests(
            (blake2b(str(r.picture).encode(), digest_size=32).digest() for r in rows), 32
        ),
        labels=Coded.of("ab"[row.picture % 2] for row in rows),
        values=[row.value for row in rows],
    )
    assignment = assign_parts(asked, split, fixed)
    parts = [None if part == LEFT_OUT else PARTS[part] for part in assignment.parts]
    return dict(zip(rows, parts, strict=True)), assignment


@st.composite
def changes(draw: st.DrawFn, values: st.SearchStrategy[str]) -> tuple[list[Row], list[Row]]:
    """Draw rows, and what becomes of them: some are gone, others come, in another order."""
    pictures = st.integers(0, draw(st.sampled_from([8, 40, 10**6])))
    several = st.lists(st.tuples(pictures, values), min_size=1, max_size=60)
    drawn = [draw(several), draw(several)]
    rows = [Row(n, *row) for n, row in enumerate([*drawn[0], *drawn[1]])]
    before = rows[: len(drawn[0])]
    gone = draw(st.sets(st.sampled_from(before), max_size=len(before) // 3))
    after = draw(st.permutations([row for row in rows if row not in gone]))
    return before, after


def parts_by(key: str, parts: Parts) -> list[set[Part]]:
    found = defaultdict(set)
    for row, part in parts.items():
        if part is not None:
            found[getattr(row, key)].add(part)
    return list(found.values())


def assert_nothing_moves(split: SplitSettings, before: list[Row], after: list[Row]) -> None:
    first, chosen = assigned(before, split)
    second, grown = assigned(after, split, chosen.thresholds, name="renamed-")

    assert {**grown.thresholds} == {**chosen.thresholds}
    for parts, assignment in ((first, chosen), (second, grown)):
        rows = list(parts)
        assert all(len(found) == 1 for found in parts_by("picture", parts))
        for index, twin in assignment.twins.items():
            assert parts[rows[index]] is None
            assert parts[rows[twin]] is not None
            assert rows[index].picture == rows[twin].picture
    for row in set(first) & set(second):
        if first[row] is None:  # it may come back once the row that was nearer to training is gone
            assert second[row] is None or picture_in(row, set(first) - set(second))
        elif second[row] is None:
            assert picture_in(row, set(second) - set(first))
        else:
            assert second[row] is first[row]


def picture_in(row: Row, rows: set[Row]) -> bool:
    return row.picture in {each.picture for each in rows}


NAMES = st.sampled_from([f"farm {letter}" for letter in "abcdefghijkl"])
DAYS = st.integers(1, 28).map(lambda day: f"2026-02-{day:02d}")


@settings(max_examples=100, deadline=None)
@given(rows=changes(NAMES))
def test_no_row_moves_and_no_group_is_divided(rows: tuple[list[Row], list[Row]]) -> None:
    before, after = rows

    assert_nothing_moves(GROUP, before, after)

    first, chosen = assigned(before, GROUP)
    second, _ = assigned(after, GROUP, chosen.thresholds)
    assert not chosen.twins  # groups with an equal picture are one
    for parts in (first, second):
        assert all(len(found) == 1 for found in parts_by("value", parts))


@settings(max_examples=100, deadline=None)
@given(rows=changes(DAYS))
def test_no_row_moves_and_later_rows_are_held_out(rows: tuple[list[Row], list[Row]]) -> None:
    before, after = rows

    assert_nothing_moves(TIME, before, after)

    _, chosen = assigned(before, TIME)
    for parts in (assigned(before, TIME)[0], assigned(after, TIME, chosen.thresholds)[0]):
        kept = [(row.value, part) for row, part in parts.items() if part is not None]
        ages = [
            [day for day, part in kept if part in window]
            for window in ({Part.TRAIN}, VALIDATIONS, TESTS)
        ]
        ordered = [window for window in ages if window]
        assert all(max(a) < min(b) for a, b in pairwise(ordered))


@settings(max_examples=100, deadline=None)
@given(rows=changes(NAMES), kind=st.sampled_from([Split.STRATIFIED, Split.RANDOM]))
def test_no_row_moves_when_others_come_and_go_and_all_are_renamed(
    rows: tuple[list[Row], list[Row]], kind: Split
) -> None:
    before, after = rows
    split = SplitSettings(kind, validation_fraction=0.2, test_fraction=0.2, seed=3)

    first, chosen = assigned(before, split)
    second, grown = assigned(after, split, chosen.thresholds, name="renamed-")

    assert {row: second[row] for row in first if row in second} == {
        row: part for row, part in first.items() if row in second
    }
    for parts in (first, second):
        assert None not in parts.values()
        assert all(len(found) == 1 for found in parts_by("picture", parts))
    assert not chosen.twins
    assert not grown.twins


# --- sizes ---


@pytest.mark.parametrize("of_a_group", [1, 10, 25])
def test_groups_meet_the_fractions_of_rows(of_a_group: int) -> None:
    rows = [Row(n, n, f"group {n // of_a_group}") for n in range(1000)]

    parts, _ = assigned(rows, GROUP)

    counts = {part: list(parts.values()).count(part) for part in PARTS}
    assert abs(counts[Part.GATE] + counts[Part.REPORT] - 200) <= of_a_group
    assert abs(counts[Part.SELECTION] + counts[Part.CALIBRATION] - 200) <= of_a_group
    assert min(counts.values()) > 0


@settings(max_examples=100, deadline=None)
@given(weights=st.lists(st.integers(1, 30), min_size=3, max_size=12))
def test_three_groups_serve_training_selection_and_gate(weights: list[int]) -> None:
    names = [f"group {n}" for n, weight in enumerate(weights) for _ in range(weight)]
    rows = [Row(n, n, name) for n, name in enumerate(names)]
    wanted = {Part.TRAIN, Part.SELECTION, Part.GATE} if len(rows) >= 3 else set()

    parts, _ = assigned(rows, GROUP)

    assert wanted <= set(parts.values())


def test_groups_of_several_sizes_come_near_the_fractions() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 40, 200)
    names = [f"group {n}" for n, size in enumerate(sizes) for _ in range(size)]
    rows = [Row(n, n, name) for n, name in enumerate(names)]

    parts, _ = assigned(rows, GROUP)

    shares = {part: list(parts.values()).count(part) / len(rows) for part in PARTS}
    assert shares[Part.TRAIN] == pytest.approx(0.6, abs=0.02)
    assert shares[Part.SELECTION] == pytest.approx(0.15, abs=0.02)
    assert shares[Part.CALIBRATION] == pytest.approx(0.05, abs=0.02)


def test_groups_joined_by_a_picture_stay_together_when_the_picture_is_gone() -> None:
    rows = [Row(n, n, f"farm {n // 10}") for n in range(200)]
    bridge = Row(200, 0, "farm 11")  # the picture of a row of farm 0

    joined, chosen = assigned([*rows, bridge], GROUP)
    apart, _ = assigned(rows, GROUP, chosen.thresholds)

    assert joined[rows[0]] == joined[rows[110]] == joined[bridge]
    assert {row: joined[row] for row in rows} == apart
    recorded = {key: ends for key, ends in chosen.thresholds.items() if key != GROUPS}
    assert len(recorded) == 2
    assert not any("farm" in key for key in recorded)


def test_the_newest_rows_are_test_rows_and_the_oldest_are_learnt_from() -> None:
    rows = [Row(n, n, str(n)) for n in range(1000)]

    parts, chosen = assigned(rows, TIME)

    found = [parts[row] for row in rows]
    assert set(found[:600]) == {Part.TRAIN}
    assert [found[600:800].count(part) for part in (Part.CALIBRATION, Part.SELECTION)] == [50, 150]
    assert [found[800:].count(part) for part in (Part.REPORT, Part.GATE)] == [100, 100]
    assert (chosen.thresholds[TEST][0], chosen.thresholds[VALIDATION][0]) == (800.0, 600.0)


def test_rows_of_one_time_are_in_one_window() -> None:
    rows = [Row(n, n, f"2026-02-{1 + n // 90:02d}") for n in range(270)]

    parts, _ = assigned(rows, TIME)

    for day, window in enumerate(({Part.TRAIN}, VALIDATIONS, TESTS)):
        assert {parts[row] for row in rows[90 * day : 90 * day + 90]} == window


def test_rows_that_come_later_are_test_rows() -> None:
    rows = [Row(n, n, f"2026-02-{1 + n % 28:02d}") for n in range(280)]
    later = [Row(n, n, "2026-03-01") for n in range(280, 300)]
    _, chosen = assigned(rows, TIME)

    parts, _ = assigned([*rows, *later], TIME, chosen.thresholds)

    assert {parts[row] for row in later} <= TESTS


def test_without_a_test_fraction_there_are_no_test_rows() -> None:
    rows = [Row(n, n, f"{n // 10}") for n in range(100)]

    for kind in (Split.GROUP, Split.TIME):
        parts, _ = assigned(rows, SplitSettings(kind, 0.2, 0.0, seed=0))

        assert not TESTS & set(parts.values())
        assert {Part.TRAIN, Part.SELECTION} <= set(parts.values())


def test_a_picture_of_two_times_is_learnt_from_once() -> None:
    rows = [Row(n, n, f"2026-02-{1 + n // 10:02d}") for n in range(280)]
    again = Row(280, 0, "2026-02-28")

    parts, chosen = assigned([*rows, again], TIME)

    assert parts[rows[0]] is Part.TRAIN
    assert parts[again] is None
    assert chosen.twins == {280: 0}


def test_what_is_no_time_is_told() -> None:
    with pytest.raises(DataError, match=r"data\.time") as caught:
        assigned([Row(0, 0, "1"), Row(1, 1, "soon")], TIME)

    assert [problem.path for problem in caught.value.problems] == ["1.png"]
