"""Tracks: what is learned from what, behind one protocol.

A track turns sources into snapshots, says what is searched, fits and judges candidates, writes the
ONNX file, and scores predictions. How a run proceeds is none of its business: it is handed values
and hooks, and imports nothing of `automl.runs`, `publishing`, `views` or `steps`. These know the
names in this module only, so that they serve every track.

A track is found by its card (`automl.tracks.cards`); `track_of` loads the track itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from automl.data.dask import Workers
from automl.data.files import FileStore, SnapshotStore
from automl.data.request import DatasetRequest
from automl.data.snapshot import Envelope
from automl.domain.candidate import Candidate
from automl.domain.card import Card
from automl.domain.events import FitSource
from automl.domain.facts import SpaceFacts
from automl.domain.specification import SearchSection
from automl.domain.training import CurvePoint, StopReason
from automl.domain.trial import Device, Measurement
from automl.errors import DamagedDataError
from automl.scoring.interval import Interval
from automl.scoring.promotion import Decision
from automl.search.budget import TimeBudget
from automl.search.memory_model import MemoryBound
from automl.search.pruning import Judging
from automl.search.space import SearchSpace
from automl.tracks.cards import card_of, load

Values = NDArray[np.float64] | NDArray[np.float32]
"""Predictions: probabilities (n, K) of classes, or values (n, 1)."""

Feed = Mapping[str, NDArray[Any]]
"""Inputs of an ONNX file by name; the first axis counts rows."""

Decoded = TypeVar("Decoded")

log = logging.getLogger(__name__)


class Use(StrEnum):
    """What rows are read for. Which parts of a snapshot serve it, its track decides.

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
    """What a training stored to go on from.

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
    """What a file computes for some rows.

    Attributes:
        values: probabilities or values.
        labels: the classes in the order of the columns; empty for values.
    """

    values: Values
    labels: tuple[str, ...]


class Truth(NamedTuple):
    """What is true of some rows.

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
    """How exact a file must be.

    Attributes:
        max_abs_diff: largest difference of an output from the reference.
        min_gap: a label may differ where the reference's two best are closer than this.
        relative: whether differences count in units of the largest reference value, if above 1.
    """

    max_abs_diff: float
    min_gap: float = 0.0
    relative: bool = False


class Remarks(NamedTuple):
    """What a report says of a candidate besides its portrait.

    Attributes:
        summary: facts by name.
        notes: sentences.
    """

    summary: Mapping[str, str]
    notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a manifest says of a file's inputs and outputs.

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


class StudyFiles(Protocol):
    """Files that a track keeps with a study, such as weights that its seeds start from."""

    def put(self, name: str, data: bytes) -> None:
        """Write a file; the same name always has the same bytes."""

    def get(self, name: str) -> bytes:
        """Return a file's bytes; raise NotFoundError without one."""


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A trial on the way from a candidate back to its seed, the candidate's own included.

    Attributes:
        number: of the trial.
        candidate: what it evaluated.
        facts: what the run that opened it recorded of its search space, or None.
        measurement: what it measured.
    """

    number: int
    candidate: Candidate
    facts: SpaceFacts | None
    measurement: Measurement


@dataclass(frozen=True, slots=True)
class Job:
    """One training of a trial.

    Attributes:
        lineage: the trial, its parent, and so on up to the seed.
        seed: decides everything that is random.
        parent: gives the parent's model; None for a candidate without a parent.
        checkpoints: stored by the attempts before, the one to go on from first; the others are for
            the case that it is damaged.
        budget: how long the training may take.
    """

    lineage: tuple[Ancestor, ...]
    seed: tuple[int, ...]
    parent: Callable[[], bytes] | None
    checkpoints: Iterable[Checkpoint]
    budget: TimeBudget

    @property
    def candidate(self) -> Candidate:
        """What is evaluated."""
        return self.lineage[0].candidate


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a training of a trial came to.

    Attributes:
        stopped: why it was stopped; None if it ended by itself.
        cause: what went wrong, or "".
        measurement: what was measured; the key of the model and the device are not its to fill in.
        model: the bytes to keep; None if it came to nothing.
        judged: the predictions that the score is of.
        calibration: those on rows that only final fits are compared on.
    """

    stopped: StopReason | None
    cause: str
    measurement: Measurement
    model: bytes | None = None
    judged: Predictions | None = None
    calibration: Predictions | None = None


@dataclass(frozen=True, slots=True)
class Refit:
    """A final fit.

    Attributes:
        lineage: the trial that is fitted, its parent, and so on up to the seed.
        incumbent: the model that is published unless the fit is as good.
        is_continued: whether the run continues a published version.
        wants_fresh: whether the study asks for fresh weights.
        seed: decides everything that is random.
        checkpoints: stored by the attempts before, newest first.
        limit_s: seconds that the study gives the fit.
        left_s: seconds of them that are left.
    """

    lineage: tuple[Ancestor, ...]
    incumbent: Member
    is_continued: bool
    wants_fresh: bool
    seed: tuple[int, ...]
    checkpoints: Iterable[Checkpoint]
    limit_s: float
    left_s: float


@dataclass(frozen=True, slots=True)
class Refitted:
    """What a final fit came to.

    Attributes:
        member: the fitted candidate; None if the fit came to nothing.
        source: how its model was made.
        epochs: how many led to it.
        note: why it is not what the study asked for, or "".
        stopped: why the fit was stopped; None if it ended by itself.
    """

    member: Member | None
    source: FitSource
    epochs: int
    note: str = ""
    stopped: StopReason | None = None


class Hooks(Protocol):
    """How the outside takes part in a training."""

    def stop(self) -> StopReason | None:
        """Return why the training must end now, or None; asked often."""

    def resumed(self, curve: Sequence[CurvePoint]) -> None:
        """Take in the rounds of the attempts before; called once, before the first step."""

    def reached(self, point: CurvePoint) -> StopReason | None:
        """Take in a complete round, and return why the training ends after it, or None."""

    def plan(self, first: CurvePoint) -> int | None:
        """Return for how many rounds to train in all, given the first; None for all of them."""

    def save(self, position: int, checkpoint: bytes) -> None:
        """Store what is needed to go on from a position, a number that grows."""


class Fitter(Protocol):
    """Fits candidates on one snapshot, one after the other."""

    @property
    def device(self) -> Device:
        """Where this process fits, and what one training may take there."""

    @property
    def rounds(self) -> int:
        """Rounds of a training that is neither stopped nor shortened."""

    def fit(self, job: Job, hooks: Hooks) -> Fitted:
        """Train and judge a trial's candidate until it is done or the outside stops it."""

    def refit(self, job: Refit, hooks: Hooks) -> Refitted:
        """Fit a winner on training and judging rows."""

    def losses(self, member: Member) -> NDArray[np.float64]:
        """Return the loss of a model on each row that only final fits are compared on [n]."""


class Dataset(Protocol):
    """A snapshot, opened by its track."""

    @property
    def envelope(self) -> Envelope:
        """What the snapshot holds, as far as every track's does."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that truths count; empty for values."""

    @property
    def details(self) -> Mapping[str, Any]:
        """What a model that is fitted on the snapshot must be kept with; see `Member`."""

    def parts(self, use: Use) -> tuple[str, ...]:
        """Return the parts of the snapshot that serve a use."""

    def size_facts(self) -> Mapping[str, int | str]:
        """Return what the search space depends on, the rows alone considered."""

    def facts(self, search: SearchSection, files: StudyFiles) -> Mapping[str, int | str]:
        """Return all that the search space of a new run depends on besides its specification.

        What must be measured on this machine is measured here, once for the run.
        """

    def fitter(self, search: SearchSection, facts: SpaceFacts | None, files: StudyFiles) -> Fitter:
        """Return what fits candidates of a run.

        Args:
            search: how it searches.
            facts: what its opening recorded, or None.
            files: kept with the study.
        """

    def raw(self, use: Use) -> Iterator[RawRow]:
        """Yield rows before preprocessing, in an order that never changes.

        Raises:
            DamagedDataError: a shard is not what was written.
        """

    def example(self) -> Feed:
        """Return a row of the size that most inputs have, to measure with how long a file takes."""

    def emit(self, members: Sequence[Member], properties: Mapping[str, str]) -> bytes:
        """Return the ONNX file that blends the members; equal arguments give equal bytes.

        Args:
            members: one or more; their weights sum to 1.
            properties: metadata for the file.

        Raises:
            ExportError: the members do not fit the snapshot.
        """

    def reference(self, members: Sequence[Member], most: int) -> Values:
        """Return what the members compute for the first held-out rows, at most so many."""

    def file_facts(self, members: Sequence[Member]) -> FileFacts:
        """Return what a manifest says of the file of these members."""

    def misfits(self, published: FileFacts) -> Iterator[str]:
        """Yield in what a published file differs from one that would be fitted on this snapshot."""


class Scores(Protocol):
    """How predictions are scored and compared."""

    def metrics(self, outputs: Outputs, truth: Truth) -> Mapping[str, Interval]:
        """Return the track's metrics with 95 % intervals, by name."""

    def compare(
        self, challenger: Outputs, champion: Outputs, truth: Truth, min_improvement: float
    ) -> Decision:
        """Decide by a paired one-sided test on the same rows whether a challenger is promoted."""

    def tables(self, outputs: Outputs, truth: Truth) -> Sequence[Table]:
        """Return what a report shows of the predictions besides the metrics."""


class Memory(Protocol):
    """What trainings of a track take, predicted; importing what it needs loads no torch."""

    def resident_bytes(self, facts: SpaceFacts, device: Device) -> int | None:
        """Return the bytes of rows that stay on the device during a training.

        Returns:
            None where the run recorded nothing of its trainings, so that nothing bounds them.
        """

    def refit_bytes(self, candidate: Candidate, facts: SpaceFacts, device: Device) -> int | None:
        """Return what a final fit is predicted to take on a device; None if it cannot be told."""

    def shared_bytes(
        self, candidates: Sequence[Candidate], facts: SpaceFacts, limit: int, envelope: Envelope
    ) -> int | None:
        """Return what a process takes at most of a GPU that it shares; None for a whole GPU.

        Args:
            candidates: the newest ones of the study.
            facts: of the run.
            limit: `search.limits.device_memory`.
            envelope: of the run's snapshot.
        """


class Samples(Protocol):
    """The format of the rows that are stored with a version, to verify it later."""

    def pack(self, feeds: Sequence[Feed], values: Values) -> bytes:
        """Return rows with their predictions as bytes; equal arguments give equal bytes."""

    def unpack(self, data: bytes) -> tuple[list[Feed], Values]:
        """Return what `pack` was given; raise DamagedDataError if it is none."""


class Track(Protocol):
    """What is learned from what."""

    @property
    def card(self) -> Card:
        """What is known of it without loading it."""

    @property
    def version(self) -> int:
        """Version of the search, which rises when the same log would lead to other proposals."""

    @property
    def judging(self) -> Judging:
        """How its trials may be judged early."""

    @property
    def tolerance(self) -> Tolerance:
        """How exact its files must be."""

    @property
    def scores(self) -> Scores:
        """How its predictions are scored and compared."""

    @property
    def memory(self) -> Memory | None:
        """What its trainings take; None where that needs no care."""

    @property
    def samples(self) -> Samples:
        """The format of the rows stored with a version."""

    def prepare(self, request: DatasetRequest, store: SnapshotStore, workers: Workers) -> Envelope:
        """Return the envelope of the source's snapshot, building it unless it exists.

        Raises:
            DataError: the dataset cannot be used; the problems list rows and reasons.
        """

    def open(self, store: FileStore, dataset: str, snapshot: str) -> Dataset:
        """Return a stored snapshot.

        Raises:
            NotFoundError, DamagedDataError, NewerSchemaError: it cannot be read.
        """

    def space(
        self, search: SearchSection, facts: SpaceFacts, memory: MemoryBound | None
    ) -> SearchSpace:
        """Return the search space of a run.

        Args:
            search: how it searches.
            facts: what its opening recorded.
            memory: what fits on the device that the next candidate is for; None without bounds.

        Raises:
            ConfigError: nothing is within the limits.
            DamagedDataError: a fact is missing.
            SearchSpaceExhaustedError: what is as small as the seeds ran out of memory.
        """

    def remarks(
        self, lineage: Sequence[Ancestor], facts: SpaceFacts | None, search: SearchSection
    ) -> Remarks:
        """Return what a report says of a published candidate.

        Args:
            lineage: its trial, the parent, and so on up to the seed.
            facts: what the opening of the run that publishes it recorded, or None.
            search: how that run searched.
        """

    def recognises(self, inputs: Sequence[str], outputs: Sequence[str]) -> bool:
        """Return whether a file with these inputs and outputs may be one of the track's."""

    def read(self, name: str, data: bytes) -> Iterator[tuple[str, Feed]]:
        """Yield the rows of an input file of `automl predict`, each with a name for people.

        Raises:
            DataError: the file is none that the track reads.
        """


@cache
def track_of(task: str) -> Track:
    """Return the track for a task, loaded at the first call.

    Raises:
        ConfigError: no such track is installed.
    """
    track: Track = load(card_of(task).track)
    return track


def first_whole(
    checkpoints: Iterable[Checkpoint], decode: Callable[[bytes], Decoded]
) -> Decoded | None:
    """Return the first checkpoint that can be read, None if there is none.

    Args:
        checkpoints: the one to go on from first.
        decode: reads one, or raises DamagedDataError.
    """
    tried = 0
    for key, data in checkpoints:
        tried += 1
        try:
            return decode(data)
        except DamagedDataError as error:
            log.warning("%s is damaged, trying the one before: %s", key, error)
    if tried:
        log.warning("there is no checkpoint that can be read: the training starts anew")
    return None
