"""`automl predict` with a file of values, whose track reads CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from automl.domain.settings import Settings
from automl.errors import ConfigError, DataError, ExportError
from automl.publishing.registry import Registry
from automl.steps import versions as commands
from automl.steps.versions import predict_files
from automl.storage.file import FileObjectStore
from automl.tracks.image.resize import resize_graph
from automl.tracks.track import Feed
from tests import versions
from tests.files import sum_file


class Sums:
    """As much of a track as predictions ask for."""

    def recognises(self, inputs: Sequence[str], outputs: Sequence[str]) -> bool:
        return list(inputs) == ["a", "b"] and "value" in outputs

    def read(self, name: str, data: bytes) -> Iterator[tuple[str, Feed]]:
        for number, row in enumerate(csv.DictReader(io.StringIO(data.decode())), 1):
            try:
                feed = {key: np.array([[float(text)]], np.float32) for key, text in row.items()}
            except ValueError as error:
                raise DataError(f"{name}, row {number}: {error}") from error
            yield f"{name}:{number}", feed


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    tracks = {"sums": Sums()}
    monkeypatch.setattr(commands, "track_of", tracks.__getitem__)
    monkeypatch.setattr(commands, "installed_cards", lambda: tracks)
    return Settings(home=str(tmp_path / "home"))


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n0.5,0.25\n")
    return str(path)


def test_each_row_of_a_table_gets_a_value(settings: Settings, rows: str, tmp_path: Path) -> None:
    model = tmp_path / "sum.onnx"
    model.write_bytes(sum_file())

    assert predict_files(settings, str(model), [rows]) == {
        "schema": 1,
        "rows": [
            {"input": f"{rows}:1", "value": 3.0},
            {"input": f"{rows}:2", "value": 0.75},
        ],
    }


def test_a_row_that_cannot_be_read_leaves_the_others(
    settings: Settings, rows: str, tmp_path: Path
) -> None:
    model, broken = tmp_path / "sum.onnx", tmp_path / "broken.csv"
    model.write_bytes(sum_file())
    broken.write_text("a,b\n1,2\nmany,3\n")

    found = predict_files(settings, str(model), [str(broken), "nowhere.csv", rows])["rows"]

    assert [row.get("value") for row in found] == [3.0, None, None, 3.0, 0.75]
    assert found[1]["input"] == str(broken)
    assert "could not convert string to float: 'many'" in found[1]["error"]
    assert "nowhere.csv cannot be read" in found[2]["error"]


def test_the_track_of_a_study_is_that_of_its_manifest(settings: Settings, rows: str) -> None:
    registry = Registry(FileObjectStore(Path(settings.home)), "sums")
    version = registry.claim_version("a")
    facts = versions.facts("a").model_copy(update={"task": "sums", "labels": ()})
    registry.write(version, {"model.onnx": sum_file(scale=10.0)}, facts)

    found = predict_files(settings, "sums@1", [rows])["rows"]

    assert [row["value"] for row in found] == [30.0, 7.5]
    with pytest.raises(ConfigError, match="no champion of a study 'sums'"):
        predict_files(settings, "sums", [rows])


def test_a_file_that_no_track_recognises_is_refused(
    settings: Settings, rows: str, tmp_path: Path
) -> None:
    model = tmp_path / "other.onnx"
    model.write_bytes(resize_graph(8).SerializeToString())

    with pytest.raises(
        ExportError, match=r"reads \['image'\] and computes \['resized'\]"
    ) as caught:
        predict_files(settings, str(model), [rows])
    assert "no installed track (sums)" in caught.value.message
