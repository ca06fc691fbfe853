"""Manifests in Parquet files."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from automl.errors import ConfigError, DataError
from automl.storage.file import FileObjectStore
from automl.tracks.image import parquet
from automl.tracks.image.parquet import read_parquet, text_of
from automl.tracks.image.sources import SourceLocation, list_source
from automl.tracks.image.tables import Columns

needs_pyarrow = pytest.mark.needs_package("pyarrow")
PATHS = ["0.png", " b/1.png ", None]


def table(columns: Mapping[str, Any], **options: Any) -> bytes:
    import pyarrow
    from pyarrow.parquet import write_table

    buffer = io.BytesIO()
    write_table(pyarrow.table(dict(columns)), buffer, **options)
    return buffer.getvalue()


def labels(values: Any) -> list[tuple[str, str]]:
    """Return label and problem of each row of a table with these labels."""
    data = table({"path": [f"{n}.png" for n in range(len(values))], "label": values})
    return [
        (line.label, line.problem)
        for line in read_parquet(io.BytesIO(data), Columns("the manifest", None))
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("cat", "cat"), (b"caf\xc3\xa9", "café"), (b"\xff", None), (None, ""), (float("nan"), ""),
        (True, "true"), (False, "false"), (-7, "-7"), (3.0, "3"), (-0.0, "0"), (0.5, None),
        (float("inf"), None), (2.0**60, None), (Decimal("12.00"), "12"), (Decimal("0.5"), None),
    ],
)  # fmt: skip
def test_values_are_texts_if_they_are_labels(value: object, text: str | None) -> None:
    assert text_of(value) == text


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")

    with pytest.raises(ConfigError, match=r"pip install 'automl-airflow\[parquet\]'"):
        list_source(SourceLocation(FileObjectStore(tmp_path), "t.parquet"))


@needs_pyarrow
@pytest.mark.parametrize("suffix", ["parquet", "pq", "PARQUET"])
def test_rows_are_those_of_the_file(tmp_path: Path, suffix: str) -> None:
    columns = {"more": [[1], [2], [3]], "label": ["a", "b, c", "a"], "path": PATHS}
    (tmp_path / f"t.{suffix}").write_bytes(table(columns, row_group_size=2))

    rows = list_source(SourceLocation(FileObjectStore(tmp_path), f"t.{suffix}")).rows

    assert [(row.path, row.label, row.problem) for row in rows] == [
        ("0.png", "a", "there is no such file"),
        ("b/1.png", "b, c", "there is no such file"),
        ("", "a", "the row has no path"),
    ]


@needs_pyarrow
def test_labels_of_every_type_are_texts() -> None:
    import pyarrow

    fine = [("1", ""), ("", ""), ("3", "")]
    integers = pyarrow.array([1, None, 3])
    for kind in ("int8", "uint64", "float32", "float64"):
        assert labels(integers.cast(kind)) == fine
    for kind in ("string", "large_string", "binary"):
        assert labels(integers.cast("string").cast(kind)) == fine
    assert labels(integers.cast("string").dictionary_encode()) == fine
    assert labels(integers.cast(pyarrow.decimal128(30, 2))) == fine
    assert labels(pyarrow.array([True, None, False])) == [("true", ""), ("", ""), ("false", "")]
    assert labels(pyarrow.array([0.5])) == [("", "'label' of the row is no text or integer")]
    assert labels(pyarrow.nulls(1)) == [("", "")]


@needs_pyarrow
def test_only_the_columns_that_are_wanted_are_read(tmp_path: Path) -> None:
    class Counting(FileObjectStore):
        read = 0

        def get_range(self, key: str, start: int, size_bytes: int) -> bytes:
            data = super().get_range(key, start, size_bytes)
            Counting.read += len(data)
            return data

    pictures = [bytes([n]) * 100_000 for n in range(100)]
    names = [f"{n}.png" for n in range(100)]
    columns = {"path": names, "pixels": pictures, "label": ["a"] * 100}
    data = table(columns, compression="none", use_dictionary=False)
    (tmp_path / "t.parquet").write_bytes(data)

    listing = list_source(SourceLocation(Counting(tmp_path), "t.parquet"))

    assert [row.path for row in listing.rows] == names
    assert Counting.read < len(data) / 4


@needs_pyarrow
@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"path": ["a"]}, "no 'Label' or 'label'"),
        ({"label": ["a"]}, "no 'File Name' or 'path'"),
        ({"path": ["a"], "label": [["a"]]}, r"'label' of .* is of the type list<.*data\.label"),
        ({"path": [{"a": 1}], "label": ["a"]}, "'path' of .* is of the type struct"),
        ({"path": [], "label": []}, "has no rows"),
    ],
)
def test_columns_that_are_missing_or_hold_no_text_are_named(
    tmp_path: Path, columns: dict[str, Any], words: str
) -> None:
    import pyarrow

    text = pyarrow.string()
    typed = {k: v or pyarrow.array([], text) for k, v in columns.items()}
    (tmp_path / "t.parquet").write_bytes(table(typed))

    with pytest.raises(DataError, match=words):
        list_source(SourceLocation(FileObjectStore(tmp_path), "t.parquet"))


@needs_pyarrow
@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: b"x" * 99, lambda data: data[:-9],
               lambda data: data[:4] + b"\xff" * 60 + data[64:]],
)  # fmt: skip
def test_what_is_no_parquet_file_is_refused(tmp_path: Path, damage: Any) -> None:
    good = table({"path": [f"{n}.png" for n in range(99)], "label": list(range(99))})
    (tmp_path / "t.parquet").write_bytes(damage(good))

    with pytest.raises(DataError, match=r"t\.parquet is no whole Parquet file"):
        list_source(SourceLocation(FileObjectStore(tmp_path), "t.parquet"))


def test_a_folder_of_parquet_files_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").mkdir()
    (tmp_path / "t.parquet" / "part-0.parquet").write_bytes(b"PAR1")

    with pytest.raises(DataError, match="is a folder, not a file"):
        list_source(SourceLocation(FileObjectStore(tmp_path), "t.parquet"))


@needs_pyarrow
def test_rows_are_bounded_by_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a few bytes of the file stand for very many rows."""
    (tmp_path / "t.parquet").write_bytes(
        table({"path": ["x.png"] * 100_000, "label": [1] * 100_000})
    )
    location = SourceLocation(FileObjectStore(tmp_path), "t.parquet")
    monkeypatch.setattr(parquet, "usable_bytes", lambda: 100_000_000)

    with pytest.raises(DataError, match="has 100,000 rows, and this process may hold 83,333"):
        list_source(location)
    names = ["n" * 3000 + str(number) for number in range(10_000)]
    (tmp_path / "t.parquet").write_bytes(table({"path": names, "label": [1] * 10_000}))
    with pytest.raises(DataError, match="fewer if texts are long"):
        list_source(location)
