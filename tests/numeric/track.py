"""The track: rows, pipelines that are fitted out of fold, and what is published of them."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from automl.data.dask import Runner
from automl.data.files import FileStore, SnapshotStore
from automl.data.profile import Bins, Distribution, Profile, Scale
from automl.data.request import DatasetRequest
from automl.data.snapshot import Envelope, read_shards, write_envelope, write_shard
from automl.data.splits import position
from automl.domain.candidate import Candidate
from automl.domain.events import FitSource
from automl.domain.layout import SnapshotKeys
from automl.domain.objective import Objective
from automl.domain.training import CurvePoint
from automl.domain.trial import Device, Measurement, Trial
from automl.errors import DataError
from automl.onnx import VALUE
from automl.onnx.graph import GraphWriter
from automl.search.pruning import Judging, Rungs
from automl.search.space import Description, LabelledGraph
from automl.tracks import track
from automl.tracks.feeds import FeedSamples, read_tensors
from automl.tracks.track import Feed, Fitted, Hooks, Member, RawRow, Use, Values
from automl.tracks.values import ValueScores
from tests.numeric import CARD

FOLDS = 3
BINS = Bins(scale=Scale.LOG, size=16)  # of any number, 4 % wide
PIPELINES = [f'{{"ridge": {10.0**power}}}' for power in range(-2, 4)]
PIPELINES += [f'{{"neighbours": {count}}}' for count in (1, 2, 3, 5, 9)]

Floats = NDArray[np.floating]
Learned = Mapping[str, NDArray[Any]]  # "slopes" and "intercept", or "x", "y" and "count"


class Pipelines:
    """Search space of a handful of pipelines."""

    def seeds(self) -> Sequence[Candidate]:
        return [self._candidate(0), self._candidate(-1)]

    def sample(self, parents: Sequence[Trial], rng: np.random.Generator) -> Candidate:
        return self._candidate(int(rng.integers(len(PIPELINES))))

    def mutate(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        place = PIPELINES.index(candidate.genotype) + int(rng.choice([-1, 1]))
        return self._candidate(place % len(PIPELINES))

    def contains(self, candidate: Candidate) -> bool:
        return candidate.genotype in PIPELINES

    def describe(self, candidate: Candidate) -> Description:
        ((kind, value),) = json.loads(candidate.genotype).items()
        return Description(LabelledGraph((kind,), ((),), (float(np.log2(value)),)))

    def _candidate(self, place: int) -> Candidate:
        return Candidate(genotype=PIPELINES[place], hyperparameters={})


def learn(candidate: Candidate, x: Floats, y: Floats) -> dict[str, NDArray[Any]]:
    ((kind, value),) = json.loads(candidate.genotype).items()
    if kind == "neighbours":
        rows, count = x.astype(np.float32), np.array([min(value, len(x))])
        return {"x": rows, "y": y[:, None].astype(np.float32), "count": count}
    design, penalties = np.hstack([x, np.ones((len(x), 1))]), [1.0] * x.shape[1] + [0.0]
    found = np.linalg.solve(design.T @ design + value * np.diag(penalties), design.T @ y[:, None])
    slopes, intercept = np.split(found.astype(np.float32), [-1])
    return {"slopes": slopes, "intercept": intercept[0]}


def predict(learned: Learned, x: Floats) -> Floats:
    """Return the predictions [n, 1]."""
    if "slopes" in learned:
        return np.asarray(x @ learned["slopes"] + learned["intercept"])
    distances = ((x[:, None, :] - learned["x"]) ** 2).sum(axis=2)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, : learned["count"][0]]
    return np.asarray(learned["y"][nearest].mean(axis=1))


@dataclass(frozen=True)
class NumericFitter:
    """Fits pipelines on the rows for learning, out of fold."""

    x: Floats
    y: Floats
    keys: Sequence[str]
    device: Device = field(default_factory=lambda: Device(type="cpu"))
    rounds: int = FOLDS

    def fit(self, job: track.Job, hooks: Hooks) -> Fitted:
        began, stopped = time.monotonic(), None
        values = track.first_whole(job.checkpoints, lambda data: read_tensors(data)["values"])
        values = np.full(len(self.y), np.nan) if values is None else values
        folds = np.array([int(FOLDS * position(key, 1)) for key in self.keys])
        done = [fold for fold in range(FOLDS) if not np.isnan(values[folds == fold]).any()]
        hooks.resumed([self._point(values, folds, fold) for fold in done])
        for fold in range(len(done), FOLDS):
            time.sleep(float(os.environ.get("NUMERIC_FOLD_S", "0")))
            if (stopped := hooks.stop()) is not None:
                break
            held = folds == fold
            learned = learn(job.candidate, self.x[~held], self.y[~held])
            values[held] = predict(learned, self.x[held])[:, 0]
            hooks.save(fold, save({"values": values}))
            if (stopped := hooks.reached(self._point(values, folds, fold))) is not None:
                break
        known = ~np.isnan(values)
        if not known.any():
            return Fitted(stopped, "", Measurement())
        last, keys = self._point(values, folds, int(folds[known].max())), np.array(self.keys)[known]
        judged = track.Predictions(list(keys), values[known, None], self.y[known])
        measured = Measurement(score=last.score, error=last.error, epochs=last.epoch + 1,
                               seconds=time.monotonic() - began, resumed_at=len(done))  # fmt: skip
        return Fitted(stopped, "", measured, save(learn(job.candidate, self.x, self.y)), judged)

    def _point(self, values: Floats, folds: Floats, fold: int) -> CurvePoint:
        """Return the error of the folds so far, and its standard error by the delta method."""
        squares = (values - self.y)[folds <= fold] ** 2
        score = float(np.sqrt(squares.mean()))
        error = float(squares.std() / len(squares) ** 0.5 / max(2 * score, 1e-12))
        return CurvePoint(fold, (fold + 1) / FOLDS, score, error)

    def refit(self, job: track.Refit, hooks: Hooks) -> track.Refitted:
        model = save(learn(job.incumbent.candidate, self.x, self.y))
        return track.Refitted(Member(job.incumbent.candidate, model), FitSource.RETRAINED, FOLDS)

    def losses(self, member: Member) -> NDArray[np.float64]:
        return np.zeros(0)  # all rows are learned from

    def cross_fit(self, *_: Any) -> None:
        return None  # trials predict all rows out of fold


@dataclass(frozen=True)
class NumericDataset:
    """A snapshot of rows of numbers."""

    store: FileStore
    envelope: Envelope
    columns: list[str]
    labels: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def rows(self, *parts: str) -> tuple[Floats, Floats, list[str]]:
        shards = [content for _, content in read_shards(self.store, self.envelope, *parts)]
        x, y = (np.concatenate([np.asarray(s[n], np.float64) for s in shards]) for n in "xy")
        return x, y, digests(x, y)

    def parts(self, use: Use) -> tuple[str, ...]:
        return ("learn",) if use is Use.HELD_OUT else (use.value,)

    def size_facts(self, *_: Any, **__: Any) -> Mapping[str, int | str]:
        return {"columns": len(self.columns), "version": NumericTrack.version}

    facts = size_facts

    def fitter(self, *_: Any, **__: Any) -> NumericFitter:
        return NumericFitter(*self.rows("learn"))

    def raw(self, use: Use) -> Iterator[RawRow]:
        for row, truth, key in zip(*self.rows(*self.parts(use)), strict=True):
            yield RawRow(key, feed_of(self.columns, row), float(truth))

    def example(self) -> Feed:
        return feed_of(self.columns, np.zeros(len(self.columns)))

    def emit(self, members: Sequence[Member], properties: Mapping[str, str]) -> bytes:
        from onnx import TensorProto, helper

        graph = GraphWriter()
        x = graph.node("Concat", self.columns, "x", axis=1)
        graph.node("Sum", [share(graph, f"{n}.", m, x) for n, m in enumerate(members)], VALUE)
        typed = partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT, shape=["N", 1])
        inputs, output = [typed(name) for name in self.columns], typed(VALUE)
        return graph.to_bytes("regression", inputs, [output], properties)

    def reference(self, members: Sequence[Member], most: int) -> Values:
        x = self.rows("learn")[0][:most].astype(np.float32)
        return np.asarray(sum(m.weight * predict(load(m.model), x) for m in members), np.float64)

    def file_facts(self, members: Sequence[Member]) -> track.FileFacts:
        return track.FileFacts(columns=tuple((name, "float32") for name in self.columns))

    def misfits(self, published: track.FileFacts) -> Iterator[str]:
        if [name for name, _ in published.columns] != self.columns:
            yield f"its columns are {published.columns}, the dataset's {self.columns}"


def share(graph: GraphWriter, name: str, member: Member, x: str) -> str:
    """Append a member's share of the prediction, and return its name."""
    learned = {key: graph.constant(name + key, value) for key, value in load(member.model).items()}
    if "slopes" in learned:
        terms = [x, learned["slopes"], learned["intercept"]]
        value = graph.node("Gemm", terms, name + "value")
    else:
        one, two = (graph.constant(f"{name}{axis}", np.array([axis])) for axis in (1, 2))
        rows = graph.node("Unsqueeze", [x, one], name + "rows")
        gaps = graph.node("Sub", [rows, learned["x"]], name + "gaps")
        squares = graph.node("Mul", [gaps, gaps], name + "squares")
        distances = [graph.node("ReduceSum", [squares, two], name + "distances", keepdims=0)]
        outputs = name + "least", name + "nearest"
        graph.node("TopK", [*distances, learned["count"]], *outputs, axis=1, largest=0)
        found = graph.node("Gather", [learned["y"], outputs[1]], name + "found")
        value = graph.node("ReduceMean", [found, one], name + "value", keepdims=0)
    weight = graph.constant(name + "weight", np.array(member.weight, np.float32))
    return graph.node("Mul", [value, weight], name + "share")


class NumericTrack:
    """Track for regression on rows of numbers."""

    card, version, memory = CARD, 1, None
    judging = Judging(rungs=lambda _: Rungs(tuple((k + 1) / FOLDS for k in range(FOLDS))))
    tolerance = track.Tolerance(max_abs_diff=1e-4, relative=True)
    scores, samples = ValueScores(Objective.RMSE), FeedSamples()

    def prepare(self, request: DatasetRequest, store: SnapshotStore, workers: Runner) -> Envelope:
        source, key = request.locate(request.data.source)
        columns, x, y = read_csv(source.get(key).data, request.data.label or "label")
        rows, fraction = digests(x, y), request.data.test_fraction
        name = blake2b(f"{request.seed} {fraction} {sorted(rows)}".encode(), digest_size=10)
        ends = [fraction / 2, fraction]
        places = np.searchsorted(ends, [position(row, request.seed) for row in rows], side="right")
        keys, shards = SnapshotKeys(request.name, name.hexdigest()), []
        for place, part in enumerate(["gate", "report", "learn"]):
            chosen = places == place
            tensors = {"x": x[chosen], "y": y[chosen]}
            shards.append(write_shard(store, keys, part, int(chosen.sum()), tensors))
        known = {"id": keys.snapshot, "dataset": request.name, "source": request.data.source}
        found = {"shards": shards, "counts": {s.part: s.rows for s in shards}, "columns": columns}
        numbers = zip([*columns, "label"], [*x.T, y], strict=True)
        spread = {name: Distribution.of(values, BINS) for name, values in numbers}
        more = {"profile": Profile.of(len(rows), rows, (), spread)}
        return write_envelope(store, Envelope.model_validate({**known, **found, **more}))

    def open(self, store: FileStore, dataset: str, snapshot: str) -> track.Dataset:
        envelope = Envelope.read(store, dataset, snapshot)
        return NumericDataset(store, envelope, list((envelope.model_extra or {})["columns"]))

    def space(self, *_: Any, **__: Any) -> Pipelines:
        return Pipelines()

    def remarks(self, *_: Any, **__: Any) -> track.Remarks:
        return track.Remarks({}, ())

    def recognises(self, inputs: Sequence[str], outputs: Sequence[str]) -> bool:
        return list(outputs) == [VALUE]

    def read(self, name: str, data: bytes) -> Iterator[tuple[str, Feed]]:
        columns, x, _ = read_csv(data, None)
        for index, row in enumerate(x):
            yield f"{name}[{index}]", feed_of(columns, row)


def digests(x: Floats, y: Floats) -> list[str]:
    return [blake2b(row.tobytes()).hexdigest() for row in np.column_stack([x, y])]


def feed_of(columns: Sequence[str], row: Floats) -> Feed:
    return dict(zip(columns, row.astype(np.float32).reshape(-1, 1, 1), strict=True))


def read_csv(data: bytes, label: str | None) -> tuple[list[str], Floats, Floats]:
    """Return the columns, the rows without the label, and the labels (zeros without a label)."""
    try:
        columns, *lines = csv.reader(data.decode().splitlines())
        table = np.array(lines, dtype=np.float64).reshape(len(lines), len(columns))
        place = len(columns) if label is None else columns.index(label)
    except (ValueError, csv.Error):  # which would tell what the file holds
        raise DataError(f"No table of numbers with {label!r}.", "correct data.label") from None
    y = np.zeros(len(lines)) if label is None else table[:, place]
    return columns[:place] + columns[place + 1 :], np.delete(table, np.s_[place : place + 1], 1), y


TRACK: track.Track = NumericTrack()
