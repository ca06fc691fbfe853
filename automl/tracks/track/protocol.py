"""The protocols of a track, of its datasets and of what else it gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Protocol

from automl.data.dask import Runner
from automl.data.files import FileStore, SnapshotStore
from automl.data.request import DatasetRequest
from automl.data.snapshot import Envelope
from automl.domain.candidate import Candidate
from automl.domain.card import Card
from automl.domain.facts import SpaceFacts
from automl.domain.specification import SearchSection
from automl.domain.trial import Device
from automl.scoring.interval import Interval
from automl.scoring.promotion import Decision
from automl.search.memory_model import MemoryBound
from automl.search.pruning import Judging
from automl.search.space import SearchSpace
from automl.tracks.cards import card_of, load
from automl.tracks.track.fitting import (
    Ancestor,
    Fitter,
    StudyFiles,
)
from automl.tracks.track.values import (
    Feed,
    FileFacts,
    Member,
    Outputs,
    RawRow,
    Remarks,
    Table,
    Tolerance,
    Truth,
    Use,
    Values,
)


class Dataset(Protocol):
    """A snapshot, opened by its track."""

    @property
    def envelope(self) -> Envelope:
        """Envelope of the snapshot, as far as every track has it."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that truths count; empty for values."""

    @property
    def details(self) -> Mapping[str, Any]:
        """Details that a model which is fitted on the snapshot is kept with; see `Member`."""

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
    """Scores and comparisons of predictions."""

    def metrics(self, outputs: Outputs, truth: Truth) -> Mapping[str, Interval]:
        """Return the track's metrics with 95 % intervals, by name."""

    def compare(
        self, challenger: Outputs, champion: Outputs, truth: Truth, min_improvement: float
    ) -> Decision:
        """Decide by a paired one-sided test on the same rows whether a challenger is promoted."""

    def tables(self, outputs: Outputs, truth: Truth) -> Sequence[Table]:
        """Return what a report shows of the predictions besides the metrics."""


class Memory(Protocol):
    """Memory that a track's trainings are predicted to take; its imports load no torch."""

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
    """Track: what is learned from what."""

    @property
    def card(self) -> Card:
        """Card, which is known without loading the track."""

    @property
    def version(self) -> int:
        """Version of the search, which rises when the same log would lead to other proposals."""

    @property
    def judging(self) -> Judging:
        """Rules by which its trials may be judged early."""

    @property
    def tolerance(self) -> Tolerance:
        """Tolerance of its files."""

    @property
    def scores(self) -> Scores:
        """Scores and comparisons of its predictions."""

    @property
    def memory(self) -> Memory | None:
        """Memory that its trainings take; None where that needs no care."""

    @property
    def samples(self) -> Samples:
        """The format of the rows stored with a version."""

    def prepare(self, request: DatasetRequest, store: SnapshotStore, workers: Runner) -> Envelope:
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
