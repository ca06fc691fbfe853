from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.data.corrections import (
    Applied,
    Corrected,
    apply_corrections,
    load_corrections,
    read_corrections,
)
from automl.data.findings import FindingKind
from automl.errors import DataError
from automl.storage.memory import MemoryObjectStore


@dataclass(frozen=True)
class Row:
    path: str
    label: str


ROWS = [Row("a.png", "cat"), Row("b.png", "dog"), Row("c.png", "dog"), Row("b.png", "cat")]


def applied(text: str, rows: list[Row] = ROWS) -> Corrected:
    return apply_corrections(rows, read_corrections(text.encode(), "fixes.csv"))


def refusal(text: str) -> DataError:
    with pytest.raises(DataError) as caught:
        applied(text)
    return caught.value


def problems(text: str) -> list[str]:
    return [str(problem) for problem in refusal(text).problems]


def test_rows_are_dropped_and_labelled_anew() -> None:
    found = applied("path,action,label\na.png,drop,\nc.png,relabel,cat\n")

    assert found.labels == (None, "dog", "cat", "cat")
    assert found.applied == (Applied("a.png", "cat", None), Applied("c.png", "dog", "cat"))
    assert [(each.kind, each.count, each.examples) for each in found.findings] == [
        (FindingKind.DROPPED_ROWS, 1, ("a.png",)),
        (FindingKind.RELABELLED_ROWS, 1, ("c.png: dog -> cat",)),
    ]


def test_a_line_is_about_all_rows_of_its_path() -> None:
    assert applied("path,action,label\nb.png,drop,\n").labels == ("cat", None, "dog", None)


def test_a_label_that_no_row_has_is_a_finding() -> None:
    found = applied("path,action,label\nc.png,relabel,dgo\n")

    assert found.labels[2] == "dgo"
    assert found.findings[-1].kind is FindingKind.NEW_LABELS
    assert found.findings[-1].examples == ("dgo",)


def test_a_row_that_has_its_label_already_is_a_finding_and_no_correction() -> None:
    found = applied("path,action,label\na.png,relabel,cat\n")

    assert not found.applied
    assert [(each.kind, each.examples) for each in found.findings] == [
        (FindingKind.IDLE_CORRECTIONS, ("a.png",))
    ]


def test_columns_have_any_order_and_others_are_ignored() -> None:
    found = applied("\ufefflabel, note ,action,path\r\n,blurred,drop,a.png\r\n\r\n")

    assert found.labels == (None, "dog", "dog", "cat")


def test_the_table_of_issues_is_read_once_actions_are_filled_in() -> None:
    found = applied(
        "path,action,part,label,suggested,kind,score,related,note\n"
        "a.png,drop,selection,cat,dog,label_error,3.1,,\n"
        "c.png,relabel,selection,dog,cat,label_error,2.9,,\n"
        "b.png,,selection,dog,cat,label_error,2.8,,\n"
    )

    assert found.labels == (None, "dog", "cat", "cat")


def test_a_table_of_issues_says_nothing_of_the_labels_of_sealed_rows() -> None:
    found = applied("path,action,label,suggested\nc.png,drop,,\n")

    assert found.labels[2] is None


def test_a_label_that_was_corrected_in_the_source_meanwhile_is_left() -> None:
    assert not applied("path,action,label,suggested\na.png,relabel,bird,cat\n").applied


def test_a_label_that_was_changed_in_the_wrong_column_is_refused() -> None:
    (problem,) = problems("path,action,label,suggested\nc.png,relabel,cow,cat\n")

    assert problem == (
        "line 2: the row c.png is labelled 'dog', not 'cow' as the line says; write a new label in "
        "the column suggested"
    )


def test_all_lines_that_are_wrong_are_told_at_once() -> None:
    error = refusal(
        "path,action,label\n"
        "a.png,remove,\n"
        "z.png,drop,\n"
        "c.png,relabel,\n"
        "b.png,drop,\n"
        "b.png,relabel,cat\n"
        ",drop,\n"
        "b.png,drop\n"
        "a.png,,cat\n"
    )

    assert error.message == "7 lines of fixes.csv cannot be applied."
    assert [str(problem) for problem in error.problems] == [
        "line 2: the action of 'a.png' is 'remove'; write drop or relabel",
        "line 3: the source has no row 'z.png'",
        "line 4: c.png has no new label; write it in the column label",
        "line 6: b.png is corrected otherwise in line 5",
        "line 7: it has no path",
        "line 8: it has 2 values for 3 columns",
        "line 9: the action of 'a.png' is ''; write drop or relabel",
    ]


def test_lines_that_agree_are_no_contradiction() -> None:
    assert applied("path,action,label\na.png,drop,\na.png,drop,\n").labels[0] is None


def test_lines_are_numbered_as_an_editor_does() -> None:
    assert problems('path,action,label\na.png,drop,"two\nlines"\n\nz.png,drop,\n') == [
        "line 5: the source has no row 'z.png'"
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no column 'path' and no column 'action' and no column 'label'"),
        (b"path;action;label\n", "no column 'path'"),
        (b"path,action,label,path\n", "the column 'path' twice"),
        (b"path,action,label\n\xe4,drop,\n", "not UTF-8 text: byte 18"),
        (b'path,action,label\n"a.png,drop,\n', "begins in line 2"),
    ],
)
def test_a_file_of_another_form_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=r"fixes\.csv") as caught:
        read_corrections(data, "fixes.csv")

    assert message in caught.value.message


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(
        DataError, match=r"fixes.csv does not exist. Hint: correct data.corrections"
    ):
        load_corrections(MemoryObjectStore(), "fixes.csv")


labels = st.sampled_from(["cat", "dog", "cow"])


@given(
    rows=st.lists(st.builds(Row, st.sampled_from("abcd"), labels), max_size=8),
    wanted=st.dictionaries(st.sampled_from("abcd"), st.none() | labels),
)
def test_corrections_that_were_made_in_the_source_change_nothing_more(
    rows: list[Row], wanted: dict[str, str | None]
) -> None:
    present = {row.path for row in rows}
    lines = [
        f"{path},{'drop' if label is None else 'relabel'},{label or ''}"
        for path, label in wanted.items()
        if path in present
    ]
    text = "\n".join(["path,action,label", *lines])
    first = applied(text, rows)
    after = [
        Row(row.path, label)
        for row, label in zip(rows, first.labels, strict=True)
        if label is not None
    ]
    left = [line for line in lines if ",drop," not in line]

    again = applied("\n".join(["path,action,label", *left]), after)

    assert list(again.labels) == [row.label for row in after]
    assert not again.applied
    assert len(first.labels) == len(rows)
    assert [each.path for each in first.applied] == [
        row.path for row, label in zip(rows, first.labels, strict=True) if row.label != label
    ]
