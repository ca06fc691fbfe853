"""The track: a table of durations, trainings that sleep for them, and a file that adds a number."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from automl.data.dask import Runner
from automl.data.files import FileStore, SnapshotStore
from automl.data.request import DatasetRequest
from automl.data.snapshot import Envelope, read_shards, write_envelope, write_shard
from automl.domain.candidate import Candidate
from automl.domain.events import FitSource
from automl.domain.layout import SnapshotKeys
from automl.domain.objective import Objective
from automl.domain.training import CurvePoint, StopReason
from automl.domain.trial import Device, Measurement, Trial
from automl.errors import DataError
from automl.onnx import VALUE
from automl.onnx.graph import GraphWriter
from automl.search.pruning import Judging, Rungs
from automl.search.space import Description, LabelledGraph
from automl.tracks import track
from automl.tracks.feeds import FeedSamples
from automl.tracks.track import Feed, Fitted, Hooks, Member, RawRow, Use, Values
from automl.tracks.values import ValueScores
from benchmarks.sleeping import CARD

LONGEST_NAP_S = 0.05  # after which the training asks whether it must stop
PARTS = ("gate", "report", "learn")
_HELD_OUT = 20  # rows of each part but the last


class Anything:
    """Search space of random texts, no two of them equal."""

    def seeds(self) -> Sequence[Candidate]:
        """Return one candidate, always the same."""
        return [_candidate("seed", None)]

    def sample(self, parents: Sequence[Trial], rng: np.random.Generator) -> Candidate:
        """Return any candidate, without a parent: the time does not depend on it."""
        return _candidate(rng.bytes(16).hex(), None)

    def mutate(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        """Return any candidate."""
        return _candidate(rng.bytes(16).hex(), None)

    def contains(self, candidate: Candidate) -> bool:
        """Return True."""
        return True

    def describe(self, candidate: Candidate) -> Description:
        """Return a graph of one node."""
        return Description(LabelledGraph((candidate.genotype,), ((),)))


def _candidate(text: str, parent: int | None) -> Candidate:
    return Candidate(genotype=json.dumps({"text": text}), hyperparameters={}, parent=parent)


@dataclass(frozen=True)
class Sleeper:
    """Fitter that sleeps.

    Attributes:
        seconds: how long trial n sleeps, counted round and round.
        device: it trains on the CPU.
        rounds: of a training.
    """

    seconds: NDArray[np.float64]
    device: Device = field(default_factory=lambda: Device(type="cpu"))
    rounds: int = 1

    def fit(self, job: track.Job, hooks: Hooks) -> Fitted:
        """Sleep, and go on where an earlier attempt was stopped."""
        number = job.lineage[0].number
        before_s = track.first_whole(job.checkpoints, lambda data: float(load(data)["slept"][0]))
        slept_s, stopped = self._sleep(number, before_s or 0.0, hooks)
        if stopped in {StopReason.SLICE, StopReason.SIGNAL}:
            hooks.save(int(1000 * slept_s), save({"slept": np.array([slept_s])}))
            return Fitted(stopped, "", Measurement())
        rng = np.random.default_rng(number)
        score = float(rng.random())
        measured = Measurement(score=score, error=0.01, epochs=1, seconds=slept_s)
        model = save({"added": rng.random(1, np.float32)})
        return Fitted(
            stopped or hooks.reached(CurvePoint(0, 1.0, score, 0.01, seconds=slept_s)),
            "",
            measured,
            model,
            track.Predictions(["00"], np.zeros((1, 1)), np.zeros(1)),
        )

    def _sleep(self, number: int, slept_s: float, hooks: Hooks) -> tuple[float, StopReason | None]:
        """Return how long it has slept in all, and why it was stopped."""
        wanted_s, began_s = self.seconds[number % len(self.seconds)], time.monotonic() - slept_s
        hooks.resumed([])
        while (left_s := wanted_s - (time.monotonic() - began_s)) > 0:
            if (stopped := hooks.stop()) is not None:
                return time.monotonic() - began_s, stopped
            time.sleep(min(left_s, LONGEST_NAP_S))
        return time.monotonic() - began_s, None

    def refit(self, job: track.Refit, hooks: Hooks) -> track.Refitted:
        """Return what the trial came to."""
        return track.Refitted(job.incumbent, FitSource.RETRAINED, 1)

    def losses(self, member: Member) -> NDArray[np.float64]:
        """Return none: all rows are learned from."""
        return np.zeros(0)

    def cross_fit(self, *_: Any) -> None:
        """Return none: nothing is predicted."""
        return


@dataclass(frozen=True)
class Durations:
    """Snapshot of durations."""

    store: FileStore
    envelope: Envelope
    labels: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def rows(self, part: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the columns of a part."""
        (found,) = [content for _, content in read_shards(self.store, self.envelope, part)]
        return np.asarray(found["x"], np.float64), np.asarray(found["seconds"], np.float64)

    def parts(self, use: Use) -> tuple[str, ...]:
        """Return the parts that serve a use."""
        return ("learn",) if use is Use.HELD_OUT else (use.value,)

    def size_facts(self, *_: Any, **__: Any) -> Mapping[str, int | str]:
        """Return the version of the search alone."""
        return {"version": SleepingTrack.version}

    facts = size_facts

    def fitter(self, *_: Any, **__: Any) -> Sleeper:
        """Return what sleeps."""
        return Sleeper(self.rows("learn")[1])

    def raw(self, use: Use) -> Iterator[RawRow]:
        """Yield the rows of a use."""
        for part in self.parts(use):
            for x, seconds in zip(*self.rows(part), strict=True):
                yield RawRow(_digest(x, seconds), _feed(x), float(seconds))

    def example(self) -> Feed:
        """Return any row."""
        return _feed(0.0)

    def emit(self, members: Sequence[Member], properties: Mapping[str, str]) -> bytes:
        """Return a file that adds the member's number to `x`."""
        from onnx import TensorProto, helper

        graph = GraphWriter()
        added = graph.constant("added", load(members[0].model)["added"].reshape(1, 1))
        graph.node("Add", ["x", added], VALUE)
        x, value = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1])
            for name in ("x", VALUE)
        )
        return graph.to_bytes("sleeping", [x], [value], properties)

    def reference(self, members: Sequence[Member], most: int) -> Values:
        """Return the sums."""
        x = self.rows("learn")[0][:most].astype(np.float32)
        return np.asarray(x[:, None] + load(members[0].model)["added"], np.float64)

    def file_facts(self, members: Sequence[Member]) -> track.FileFacts:
        """Return the file's column."""
        return track.FileFacts(columns=(("x", "float32"),))

    def misfits(self, published: track.FileFacts) -> Iterator[str]:
        """Yield nothing: all files have the same column."""
        yield from ()


class SleepingTrack:
    """Track whose trainings sleep."""

    card, version, memory = CARD, 1, None
    judging = Judging(rungs=lambda _: Rungs((1.0,)))
    tolerance = track.Tolerance(max_abs_diff=1e-4)
    scores, samples = ValueScores(Objective.RMSE), FeedSamples()

    def prepare(self, request: DatasetRequest, store: SnapshotStore, workers: Runner) -> Envelope:
        """Store the rows: some to test, the others to learn from."""
        source, key = request.locate(request.data.source)
        data = source.get(key).data
        rows = list(_parse(data))
        snapshot = SnapshotKeys(request.name, blake2b(data, digest_size=10).hexdigest())
        ends = [0, _HELD_OUT, 2 * _HELD_OUT, len(rows)]
        shards = [
            write_shard(store, snapshot, part, end - start, _tensors(rows[start:end]))
            for part, start, end in zip(PARTS, ends, ends[1:], strict=False)
        ]
        return write_envelope(
            store,
            Envelope(
                id=snapshot.snapshot,
                dataset=request.name,
                source=request.data.source,
                shards=tuple(shards),
                counts={shard.part: shard.rows for shard in shards},
            ),
        )

    def open(self, store: FileStore, dataset: str, snapshot: str) -> track.Dataset:
        """Return a stored snapshot."""
        return Durations(store, Envelope.read(store, dataset, snapshot))

    def space(self, *_: Any, **__: Any) -> Anything:
        """Return the space, which has no limits."""
        return Anything()

    def remarks(self, *_: Any, **__: Any) -> track.Remarks:
        """Return none."""
        return track.Remarks({}, ())

    def recognises(self, inputs: Sequence[str], outputs: Sequence[str]) -> bool:
        """Return whether a file has the one input and the one output."""
        return list(inputs) == ["x"] and list(outputs) == [VALUE]

    def read(self, name: str, data: bytes) -> Iterator[tuple[str, Feed]]:
        """Yield the rows of a table of durations."""
        for index, (x, _) in enumerate(_parse(data)):
            yield f"{name}[{index}]", _feed(x)


def _parse(data: bytes) -> Iterator[tuple[float, float]]:
    try:
        for row in csv.DictReader(data.decode().splitlines()):
            yield float(row["x"]), float(row["seconds"])
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError("It is no table of `x` and `seconds`.", "write it anew") from error


def _tensors(rows: Sequence[tuple[float, float]]) -> dict[str, NDArray[np.float64]]:
    columns = np.array(rows, np.float64)
    return {"x": columns[:, 0].copy(), "seconds": columns[:, 1].copy()}


def _feed(x: float) -> Feed:
    return {"x": np.array([[x]], np.float32)}


def _digest(x: float, seconds: float) -> str:
    return blake2b(np.array([x, seconds]).tobytes()).hexdigest()


TRACK: track.Track = SleepingTrack()
