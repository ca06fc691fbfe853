from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automl.data.findings import FindingKind
from automl.domain.settings import Settings
from automl.errors import ConfigError, DataError
from automl.runs.context import StepContext
from automl.steps.prepare import prepare
from automl.steps.study_file import read_study_file, study_spec
from automl.storage.file import FileObjectStore
from automl.tracks.image.prepare import prepare_images
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.snapshot import ImageEnvelope
from tests.digits import write_digits
from tests.local import here


@pytest.fixture
def home(tmp_path: Path) -> FileObjectStore:
    return FileObjectStore(tmp_path / "home")


def request_of(folder: Path, corrections: str, rows: int = 60) -> ImageRequest:
    """Write digits of three classes and corrections, and return the request for them."""
    write_digits(folder / "rows.npz", rows, classes=3)
    (folder / "fixes.csv").write_text("path,action,label\n" + corrections)
    store = FileObjectStore(folder)
    return ImageRequest("digits", store, "rows.npz", corrections=(store, "fixes.csv"))


def counts(envelope: ImageEnvelope) -> dict[str, int]:
    return {label: sum(rows.values()) for label, rows in envelope.counts_per_class.items()}


def test_dropped_rows_are_gone_and_others_have_their_new_labels(
    tmp_path: Path, home: FileObjectStore
) -> None:
    request = request_of(tmp_path, "x[0],drop,\nx[4],relabel,2\n")
    plain = prepare_images(replace(request, corrections=None), home, here())

    envelope = prepare_images(request, home, here())

    with np.load(tmp_path / "rows.npz") as arrays:
        before = {str(label): int((arrays["y"] == label).sum()) for label in range(3)}
        label = str(arrays["y"][4])
    assert counts(plain) == before
    before["0"] -= 1
    before[label] -= 1
    before["2"] += 1
    assert counts(envelope) == before
    assert [(each.kind, each.examples) for each in envelope.findings] == [
        (FindingKind.DROPPED_ROWS, ("x[0]",)),
        (FindingKind.RELABELLED_ROWS, (f"x[4]: {label} -> 2",)),
    ]
    assert not plain.findings


def test_rows_after_a_dropped_one_keep_their_pixels(tmp_path: Path, home: FileObjectStore) -> None:
    dropped = prepare_images(request_of(tmp_path, "x[0],drop,\n"), home, here())
    arrays = dict(np.load(tmp_path / "rows.npz"))
    np.savez(tmp_path / "less.npz", allow_pickle=False, x=arrays["x"][1:], y=arrays["y"][1:])
    store = FileObjectStore(tmp_path)

    less = prepare_images(ImageRequest("digits", store, "less.npz"), home, here())

    assert dropped.counts == less.counts
    assert (dropped.mean, dropped.std) == (less.mean, less.std)
    assert dropped.id != less.id


def test_the_same_corrections_give_the_same_snapshot_and_others_another(
    tmp_path: Path, home: FileObjectStore
) -> None:
    first = prepare_images(request_of(tmp_path, "x[0],drop,\n"), home, here())
    same = prepare_images(request_of(tmp_path, "x[0],drop,\n\n"), home, here())
    other = prepare_images(request_of(tmp_path, "x[3],drop,\n"), home, here())

    assert (same.id, same.reused) == (first.id, True)
    assert other.id != first.id


def test_a_row_without_a_label_is_mended_by_one(tmp_path: Path, home: FileObjectStore) -> None:
    request = request_of(tmp_path, "x[2],relabel,1\n")
    arrays = dict(np.load(tmp_path / "rows.npz"))
    labels = arrays["y"].astype(np.str_)
    labels[2] = ""
    np.savez(tmp_path / "rows.npz", allow_pickle=False, x=arrays["x"], y=labels)

    envelope = prepare_images(request, home, here())

    assert not envelope.quarantined
    assert sum(envelope.counts.values()) == len(labels)


def test_lines_that_cannot_be_applied_stop_the_preparation(
    tmp_path: Path, home: FileObjectStore
) -> None:
    with pytest.raises(DataError, match=r"fixes\.csv cannot be applied") as caught:
        prepare_images(request_of(tmp_path, "x[99],drop,\nx[1],keep,\n"), home, here())

    assert [problem.path for problem in caught.value.problems] == ["line 2", "line 3"]
    assert not (tmp_path / "home" / "datasets").exists()


def study(tmp_path: Path, **data: str) -> dict[str, Any]:
    source = str(write_digits(tmp_path / "rows.npz", 60, classes=3))
    return {
        "name": "digits",
        "task": "image_classification",
        "data": {"source": source, **data},
    }


def test_a_study_may_read_corrections_only_where_it_may_read_data(tmp_path: Path) -> None:
    fixes = tmp_path / "elsewhere" / "fixes.csv"
    fixes.parent.mkdir()
    fixes.write_text("path,action,label\nx[0],drop,\n")
    spec = study_spec(study(tmp_path, corrections=str(fixes)))
    settings = Settings(str(tmp_path / "home"), sources=(str(tmp_path / "rows.npz"),))
    context = StepContext.open(settings, spec, "one", "cli")

    with pytest.raises(ConfigError, match=r"fixes\.csv .*outside the places"):
        prepare(context, lambda *_: None)


def test_the_path_of_corrections_starts_at_the_study_file(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        "name: digits\ntask: image_classification\n"
        "data: {source: rows.npz, corrections: fixes.csv}\n"
    )

    text = read_study_file(file)

    assert text.locations["corrections"] == str(tmp_path / "fixes.csv")
    assert text.spec().data.corrections == str(tmp_path / "fixes.csv")
