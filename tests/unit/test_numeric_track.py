"""The second track: damaged checkpoints, and files of any blend of its pipelines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from safetensors.numpy import save

from automl.data.snapshot import Envelope
from automl.domain.candidate import Candidate
from automl.domain.training import CurvePoint, StopReason
from automl.domain.trial import Measurement
from automl.errors import DamagedDataError
from automl.onnx.model import OnnxModel
from automl.search.budget import TimeBudget
from automl.storage.memory import MemoryObjectStore
from automl.tracks import track
from automl.tracks.feeds import read_tensors
from tests.numeric.track import (
    FOLDS,
    PIPELINES,
    NumericDataset,
    NumericFitter,
    Pipelines,
    digests,
    feed_of,
    learn,
    predict,
)

X = np.random.default_rng(0).standard_normal((30, 2))
Y = X @ [1.0, -2.0]


class Outside:
    """Hooks that keep what they are told."""

    def __init__(self) -> None:
        self.resumed_at: list[int] = []
        self.reached_at: list[int] = []
        self.saved: list[bytes] = []

    def stop(self) -> StopReason | None:
        return None

    def resumed(self, curve: Sequence[CurvePoint]) -> None:
        self.resumed_at = [point.epoch for point in curve]

    def reached(self, point: CurvePoint) -> StopReason | None:
        self.reached_at.append(point.epoch)
        return None

    def plan(self, first: CurvePoint) -> int | None:
        return None

    def save(self, position: int, checkpoint: bytes) -> None:
        self.saved.append(checkpoint)


def fit(hooks: track.Hooks, *checkpoints: bytes) -> track.Fitted:
    """Fit the first seed, from stored checkpoints."""
    ancestor = track.Ancestor(0, Pipelines().seeds()[0], None, Measurement())
    stored = [
        track.Checkpoint(f"checkpoint-{place}", data) for place, data in enumerate(checkpoints)
    ]
    fitter = NumericFitter(X, Y, digests(X, Y))
    return fitter.fit(track.Job((ancestor,), (0,), None, stored, TimeBudget()), hooks)


def damaged(data: bytes, damage: str) -> bytes:
    if damage == "other":
        return b"\xff" * len(data)
    return data[: {"empty": 0, "header": 12, "half": len(data) // 2, "byte": -1}[damage]]


@pytest.mark.parametrize("damage", ["empty", "header", "half", "byte", "other"])
def test_a_training_goes_on_from_the_checkpoint_before_a_damaged_one(damage: str) -> None:
    first, again = Outside(), Outside()
    expected = fit(first)
    oldest, middle, _ = first.saved

    fitted = fit(again, damaged(middle, damage), oldest)

    assert first.reached_at == list(range(FOLDS))
    assert (again.resumed_at, again.reached_at) == ([0], [1, 2])
    assert again.saved == first.saved[1:]
    assert fitted.measurement.resumed_at == 1
    assert fitted.model == expected.model
    assert fitted.judged is not None
    assert expected.judged is not None
    assert np.array_equal(fitted.judged.values, expected.judged.values)


def test_a_training_starts_anew_where_no_checkpoint_is_whole() -> None:
    first, again = Outside(), Outside()
    expected = fit(first)

    fitted = fit(again, *(damaged(data, "half") for data in first.saved))

    assert (again.resumed_at, again.saved) == ([], first.saved)
    assert fitted.model == expected.model


def test_what_is_no_file_of_tensors_is_damage() -> None:
    with pytest.raises(DamagedDataError, match="no file of tensors"):
        read_tensors(b"no tensors")


@pytest.mark.parametrize("first", PIPELINES)
@pytest.mark.parametrize("second", [PIPELINES[0], PIPELINES[-1]])
def test_a_file_computes_what_its_members_do(first: str, second: str) -> None:
    candidates = [Candidate(genotype=each, hyperparameters={}) for each in (first, second)]
    learned = [learn(candidate, X, Y) for candidate in candidates]
    members = [
        track.Member(candidate, save(arrays), weight=0.5)
        for candidate, arrays in zip(candidates, learned, strict=True)
    ]
    envelope = Envelope(id="0", dataset="rows", counts={}, shards=(), source="rows.csv")
    dataset = NumericDataset(MemoryObjectStore(), envelope, ["a", "b"])
    rows = np.random.default_rng(1).standard_normal((5, 2)).astype(np.float32)

    file = OnnxModel(dataset.emit(members, {}))

    expected = np.mean([predict(arrays, rows) for arrays in learned], axis=0)
    found = [file.predict(feed_of(dataset.columns, row)).values for row in rows]
    assert np.allclose(np.concatenate(found), expected, atol=1e-5)
    batch = {name: rows[:, [place]] for place, name in enumerate(dataset.columns)}
    assert np.allclose(file.predict(batch).values, expected, atol=1e-5)
