"""Tables of files in Parquet files: two columns of them are read, a batch of rows at a time."""

from __future__ import annotations

import datetime
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from automl.errors import ConfigError, DataError
from automl.machine.memory import usable_bytes
from automl.tracks.image.tables import Columns, TableLine

PARQUET_SUFFIXES = (".parquet", ".pq")
ROWS_SHARE = 0.25  # of the memory left: what the rows take
ROW_BYTES = 300  # what a row takes in columns and while it is planned, without its texts
_BATCH_ROWS = 2**14
_BUFFER_BYTES = 2**20
_MOST_EXACT = 2.0**53  # floating-point numbers above may stand for several integers
_NOT_INSTALLED = (
    "pip install 'automl-airflow[parquet]' where the data are prepared, or save the table as CSV"
)


def read_parquet(file: io.RawIOBase | BinaryIO, wanted: Columns) -> Iterator[TableLine]:
    """Yield the rows of a table of files.

    Integers, truth values (`true`, `false`) and floating-point numbers that are integers become
    text; missing values and NaN are rows without a path or a label.

    Args:
        file: the Parquet file, which can be read from anywhere.
        wanted: columns that it has to have, and what error messages call it.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: it is no Parquet file, a column is missing, there twice or of a type that is no
            text or number, or it has more rows than memory.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ConfigError(
            f"{wanted.name} is a Parquet file, which takes pyarrow.", _NOT_INSTALLED
        ) from error
    try:
        with ParquetFile(file, buffer_size=_BUFFER_BYTES) as table:
            yield from _rows(table, wanted)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        why = str(error).strip().partition("\n")[0][:200]
        raise DataError(
            f"{wanted.name} is no whole Parquet file: {why}", "save it again"
        ) from error


def _rows(table: Any, wanted: Columns) -> Iterator[TableLine]:
    schema = table.schema_arrow
    columns = wanted.find(list(schema.names))
    for column in columns[:2]:
        _check_type(schema.field(column).type, column, wanted.name)
    left_bytes = int(ROWS_SHARE * usable_bytes())
    most = max(1, left_bytes // ROW_BYTES)
    if table.metadata.num_rows > most:
        raise _too_large(wanted.name, table.metadata.num_rows, most)
    names = list(dict.fromkeys(columns))
    for batch in table.iter_batches(_BATCH_ROWS, columns=names, use_threads=False):
        left_bytes -= batch.num_rows * ROW_BYTES + batch.nbytes
        if left_bytes < 0:
            raise _too_large(wanted.name, table.metadata.num_rows, most)
        for values in zip(*(batch.column(column).to_pylist() for column in columns), strict=True):
            yield _line(columns, values)


def _too_large(name: str, rows: int, most: int) -> DataError:
    return DataError(
        f"{name} has {rows:,} rows, and this process may hold {most:,}, fewer if texts are long.",
        "divide it, or prepare where there is more memory",
    )


def _check_type(kind: Any, column: str, name: str) -> None:
    """Refuse a column that can hold no paths or labels.

    Raises:
        DataError: it is neither text nor numbers.
    """
    from pyarrow import types

    value = kind.value_type if types.is_dictionary(kind) else kind
    is_known = (
        types.is_string(value) or types.is_large_string(value) or types.is_string_view(value)
        or types.is_binary(value) or types.is_large_binary(value) or types.is_binary_view(value)
        or types.is_integer(value) or types.is_floating(value) or types.is_boolean(value)
        or types.is_decimal(value) or types.is_null(value)
    )  # fmt: skip
    if not is_known:
        raise DataError(
            f"The column {column!r} of {name} is of the type {kind}.",
            "it has to be text, integers or truth values; correct data.label, or convert it",
        )


def _line(columns: Sequence[str], values: Sequence[object]) -> TableLine:
    texts = [text_of(value) for value in values[:2]] + [further_text(v) for v in values[2:]]
    odd = [repr(column) for column, text in zip(columns, texts, strict=True) if text is None]
    path, label, *further = ((text or "").strip() for text in texts)
    problem = f"{' and '.join(odd)} of the row is no text or integer" * bool(odd)
    return TableLine(path, label, problem, *further)


def further_text(value: object) -> str | None:
    """Return a value as `text_of` does; dates and times in the form of ISO 8601, any number."""
    if isinstance(value, datetime.date):  # times of a day are dates, too
        return value.isoformat()
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    return text_of(value) if isinstance(value, bytes | str | int | float | None) else None


def text_of(value: object) -> str | None:
    """Return a value as text, "" if it is missing; None if it is no text or integer."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    if isinstance(value, str | int):
        return str(value)
    number: Any = value  # a float or a decimal number
    if not math.isfinite(number) or abs(number) > _MOST_EXACT or number != int(number):
        return None
    return str(int(number))
