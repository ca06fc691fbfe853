"""Snapshots that are gone or damaged: the next run prepares them again, with the same split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automl.data.snapshot import Envelope
from automl.data.splits import Part
from automl.domain.events import RunState
from automl.domain.settings import Settings
from automl.errors import DamagedDataError
from automl.runs import opening
from automl.runs.context import StepContext
from automl.runs.run_lease import RunLease
from automl.steps.open_run import open_search
from automl.steps.prepare import prepare
from automl.tracks.image.snapshot import ImageEnvelope, ImageSnapshot
from tests.digits import study_of_digits, write_digits


def night(
    folder: Path, run: str, rows: int, size: int | str = 8, time_limit: str = "2h"
) -> StepContext:
    """Return the context of a run on so many digits."""
    search = {"workers": 1, "max_trials": 1, "strategy": "random", "time_limit": time_limit}
    more: dict[str, Any] = {
        "search": search,
        "data": {"source": str(folder / "rows.npz"), "image_size": size},
    }
    spec = study_of_digits(folder, rows=rows, **more)
    return StepContext.open(Settings(str(folder / "home")), spec, run, "test")


def prepared(context: StepContext) -> Envelope:
    return prepare(context, lambda *_: None)


def opened(context: StepContext, *, tells_split: bool = True) -> Envelope:
    """Prepare, and open and close the run, in a log that tells the split or of an older version."""
    found = prepared(context)
    with RunLease(context):
        if tells_split:
            open_search(context, found.id)
        else:
            opening.open_run(context, found.id)
        opening.close_run(context, RunState.FAILED, "a test")
    return found


def delete(context: StepContext, snapshot: Envelope) -> None:
    """Remove all that is stored of a snapshot."""
    for entry in list(context.store.list(f"datasets/{snapshot.dataset}/{snapshot.id}/")):
        context.store.delete(entry.key)


def test_a_deleted_snapshot_is_prepared_again_with_its_split(tmp_path: Path) -> None:
    first = opened(night(tmp_path, "one", 300))
    context = night(tmp_path, "two", 300)
    stored = {entry.key for entry in context.store.list("datasets/")}
    delete(context, first)

    again = prepared(context)

    assert again == first
    assert not again.reused
    assert {entry.key for entry in context.store.list("datasets/")} == stored


def test_the_split_outlives_the_snapshot_that_fixed_it(tmp_path: Path) -> None:
    first = opened(night(tmp_path, "one", 300))
    context = night(tmp_path, "two", 400)
    with_it = prepared(context)
    delete(context, first)
    delete(context, with_it)

    assert prepared(night(tmp_path, "two", 400)).id == with_it.id
    assert with_it.thresholds == first.thresholds


def test_any_snapshot_of_the_generation_tells_the_split_of_an_older_log(tmp_path: Path) -> None:
    first = opened(night(tmp_path, "one", 300), tells_split=False)
    second = opened(night(tmp_path, "two", 400), tells_split=False)
    context = night(tmp_path, "three", 500)
    delete(context, first)

    assert prepared(context).thresholds == second.thresholds == first.thresholds


def test_an_older_log_without_any_snapshot_says_what_to_do(tmp_path: Path) -> None:
    first = opened(night(tmp_path, "one", 300), tells_split=False)
    context = night(tmp_path, "two", 400)
    delete(context, first)

    with pytest.raises(DamagedDataError, match=rf"{first.id} are gone.*begins a new generation"):
        prepared(context)


def test_a_new_generation_fixes_its_own_split(tmp_path: Path) -> None:
    first = opened(night(tmp_path, "one", 300))
    write_digits(tmp_path / "rows.npz", 300)
    context = night(tmp_path, "two", 300)
    data = context.spec.data.model_copy(update={"test_fraction": 0.3})
    other = context.spec.model_copy(update={"data": data})

    second = opened(StepContext.open(context.settings, other, "two", "test"))

    assert second.thresholds != first.thresholds
    study = context.record.refresh()
    assert study.split == second.thresholds
    assert len(study.generation_keys) == 2


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("manifest.json", 9),
        ("preprocess.onnx", None),
        ("rows-", 9),
        ("images-", None),
        ("images-", 9),
        ("files-", None),
        ("files-", 9),
    ],
)
def test_a_snapshot_that_lacks_a_file_or_its_end_is_built_again(
    tmp_path: Path, name: str, kept: int | None
) -> None:
    first = opened(night(tmp_path, "one", 300))
    context = night(tmp_path, "two", 300)
    folder = "datasets/digits/"
    files = {e.key: context.store.get(e.key).data for e in context.store.list(folder)}
    key = next(key for key in files if key.rpartition("/")[2].startswith(name))
    context.store.delete(key)
    if kept is not None:
        context.store.put(key, files[key][:kept])

    assert prepared(context).id == first.id

    assert {e.key: context.store.get(e.key).data for e in context.store.list(folder)} == files
    assert prepared(context).reused


def test_a_generation_keeps_the_size_of_its_images(tmp_path: Path) -> None:
    opened(night(tmp_path, "one", 300, "auto"))
    context = night(tmp_path, "two", 300, "auto")
    with np.load(tmp_path / "rows.npz") as rows:
        x, y = np.kron(rows["x"], np.ones((1, 4, 4), np.uint8)), rows["y"]
    np.savez(tmp_path / "rows.npz", x=x, y=y)

    found = ImageEnvelope.read(context.store, "digits", prepared(context).id)

    assert found.image_size == 8
    assert "first run of this generation" in found.image_size_reason


def test_a_study_with_less_time_keeps_its_generations_snapshot(tmp_path: Path) -> None:
    first = opened(night(tmp_path, "one", 300, "auto"))

    found = prepared(night(tmp_path, "two", 300, "auto", time_limit="5m"))

    assert (found.id, found.reused) == (first.id, True)


@pytest.mark.parametrize("name", ["preprocess.onnx", "rows-", "images-", "files-"])
def test_a_file_that_is_damaged_is_built_again_after_a_run_has_failed(
    tmp_path: Path, name: str
) -> None:
    first = opened(night(tmp_path, "one", 300))
    context = night(tmp_path, "two", 300)
    keys = [entry.key for entry in context.store.list("datasets/digits/")]
    key = next(key for key in keys if key.rpartition("/")[2].startswith(name))
    whole = context.store.get(key).data
    context.store.put(key, whole[:-1] + bytes([whole[-1] ^ 1]))

    again = prepared(context)

    assert again.id == first.id
    assert context.store.get(key).data == whole
    assert prepared(context).reused


def test_a_damaged_block_is_built_again_for_a_snapshot_of_more_rows_too(tmp_path: Path) -> None:
    opened(night(tmp_path, "one", 300))
    context = night(tmp_path, "two", 400)
    keys = [entry.key for entry in context.store.list("datasets/digits/")]
    key = next(key for key in keys if "/images-" in key)
    whole = context.store.get(key).data
    context.store.put(key, whole[:-1] + bytes([whole[-1] ^ 1]))

    found = prepared(context)

    snapshot = ImageSnapshot.open(context.store, "digits", found.id)
    images, _ = snapshot.tensors(*Part)
    assert len(images) == 400
