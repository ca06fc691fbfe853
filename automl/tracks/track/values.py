"""Values that tracks, runs and publishing hand each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from automl.domain.candidate import Candidate

Values = NDArray[np.float64] | NDArray[np.float32]
"""Predictions: probabilities (n, K) of classes, or values (n, 1)."""

Feed = Mapping[str, NDArray[Any]]
"""Inputs of an ONNX file by name; the first axis counts rows."""


class Use(StrEnum):
    """Purposes that rows are read for. The track decides which parts of a snapshot serve them.

    One part may serve both the gate and the report, where there are few test rows.
    """

    HELD_OUT = "held_out"  # no weights have been fitted to them before the final fit
    GATE = "gate"  # decide about promotions
    REPORT = "report"  # give the published metrics


class RawRow(NamedTuple):
    """A row before preprocessing, as a consumer of the file has it.

    Attributes:
        key: digest of the row's content, the same in every snapshot that has the row.
        feed: the file's inputs for this one row.
        truth: index of its class, or its value.
    """

    key: str
    feed: Feed
    truth: float


class Checkpoint(NamedTuple):
    """State that a training stored to go on from.

    Attributes:
        key: where it was stored, for messages.
        data: its bytes, as the track made them.
    """

    key: str
    data: bytes


class Predictions(NamedTuple):
    """Predictions out of sample.

    Attributes:
        keys: of the rows, hexadecimal digests.
        values: the predictions, in the rows' order.
        truth: indices of classes, or values [n].
    """

    keys: Sequence[str]
    values: Values
    truth: NDArray[Any]


class Outputs(NamedTuple):
    """Outputs of a file for some rows.

    Attributes:
        values: probabilities or values.
        labels: the classes in the order of the columns; empty for values.
    """

    values: Values
    labels: tuple[str, ...]


class Truth(NamedTuple):
    """True classes or values of some rows.

    Attributes:
        values: indices of classes, or values [n].
        labels: the classes that the indices count; empty for values.
    """

    values: NDArray[Any]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """One fitted candidate of those that a file blends.

    Attributes:
        candidate: what was fitted.
        model: the bytes that the fit came to.
        details: what the log keeps of the fit for the track.
        weight: its share of the blend.
        key: where the bytes are stored, for messages.
    """

    candidate: Candidate
    model: bytes
    details: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0
    key: str = "a fitted model"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Tolerance of a file: how exact it must be.

    Attributes:
        max_abs_diff: largest difference of an output from the reference.
        min_gap: a label may differ where the reference's two best are closer than this.
        relative: whether differences count in units of the largest reference value, if above 1.
    """

    max_abs_diff: float
    min_gap: float = 0.0
    relative: bool = False


class Remarks(NamedTuple):
    """Remarks of a report about a candidate, besides its portrait.

    Attributes:
        summary: facts by name.
        notes: sentences.
    """

    summary: Mapping[str, str]
    notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Facts of a manifest about a file's inputs and outputs.

    Attributes:
        labels: classes in the order of the probabilities; empty for values.
        columns: name and dtype of each input column; empty where the input is no table.
        input: what happens to an input before the file sees it; empty for tables.
        parameters: learned scalars of all members; None where they are not counted.
    """

    labels: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
    input: Mapping[str, str | int] = field(default_factory=dict)
    parameters: int | None = None


class Table(NamedTuple):
    """A table of a report.

    Attributes:
        title: its heading.
        note: a sentence above it, or "".
        rows: one mapping of column to value per row, same columns.
        highlight: the column that tells which column of the row is right, or "".
    """

    title: str
    note: str
    rows: Sequence[Mapping[str, object]]
    highlight: str = ""
