"""Verification of a version whose rows are columns, stored in a format of its track's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from automl.errors import ConfigError, DamagedDataError, VerificationError
from automl.onnx.model import OnnxModel
from automl.publishing import verify
from automl.publishing.registry import Registry
from automl.publishing.verify import require_verified, verify_files
from automl.storage.file import FileObjectStore
from automl.tracks.track import Feed, Tolerance, Values
from tests import versions
from tests.files import sum_file


class JsonSamples:
    """Rows of columns as a JSON document."""

    def pack(self, feeds: Sequence[Feed], values: Values) -> bytes:
        rows = [{name: float(column[0, 0]) for name, column in feed.items()} for feed in feeds]
        return json.dumps([rows, values.tolist()]).encode()

    def unpack(self, data: bytes) -> tuple[list[Feed], Values]:
        try:
            rows, values = json.loads(data)
        except ValueError as error:
            raise DamagedDataError(f"samples.npz cannot be read: {error}") from error
        feeds: list[Feed] = [
            {name: np.array([[value]], np.float32) for name, value in row.items()} for row in rows
        ]
        return feeds, np.array(values, np.float32)


class Sums:
    """As much of a track as verification asks for."""

    samples = JsonSamples()
    tolerance = Tolerance(max_abs_diff=1e-5, relative=True)


ROWS: list[Feed] = [
    {"a": np.array([[float(row)]], np.float32), "b": np.array([[0.5]], np.float32)}
    for row in range(3)
]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(verify, "track_of", {"sums": Sums()}.__getitem__)
    return Registry(FileObjectStore(tmp_path), "sums")


def _publish(registry: Registry, onnx: bytes, task: str = "sums", rows: list[Feed] = ROWS) -> int:
    version = registry.claim_version("a")
    values = np.concatenate([OnnxModel(sum_file()).predict(row).values for row in ROWS])
    files = {"model.onnx": onnx, "samples.npz": JsonSamples().pack(rows, values)}
    facts = versions.facts("a").model_copy(update={"task": task, "labels": (), "input": {}})
    registry.write(version, files, facts)
    return version


def test_rows_are_read_by_the_track_of_the_versions_task(registry: Registry) -> None:
    document = verify_files(registry, _publish(registry, sum_file()))

    assert document["ok"]
    assert document["parity"] == {
        "rows": 3, "max_abs_diff": 0.0, "label_mismatches": 0, "ok": True,
    }  # fmt: skip


def test_a_file_that_predicts_other_values_does_not_verify(registry: Registry) -> None:
    version = _publish(registry, sum_file(scale=2.0))

    with pytest.raises(VerificationError, match=r"differ by up to 2\.50e\+00"):
        require_verified(registry, version)


def test_a_file_that_cannot_read_its_rows_does_not_verify(registry: Registry) -> None:
    document = verify_files(
        registry, _publish(registry, sum_file(), rows=[{"a": row["a"]} for row in ROWS])
    )

    assert not document["ok"]
    assert not document["parity"]["ok"]


def test_a_version_of_a_task_without_a_track_cannot_be_verified(tmp_path: Path) -> None:
    registry = Registry(FileObjectStore(tmp_path), "sums")

    with pytest.raises(ConfigError, match="provides a track for task 'unheard_of'"):
        verify_files(registry, _publish(registry, sum_file(), task="unheard_of"))
