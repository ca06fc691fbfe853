"""A folder of all kinds of files, prepared by a real step and its processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from automl.domain.settings import Settings
from automl.domain.specification import StudySpec
from automl.errors import DataError
from automl.runs.context import StepContext
from automl.steps.prepare import prepare
from automl.steps.study_file import study_spec
from automl.storage.open import open_home
from automl.tracks.image.snapshot import ImageSnapshot
from tests.hostile_images import BAD, SHOWN, odd_but_good, picture

GOOD = 40  # plain images of each class
MOST_MB = 600  # of a process


def write_hostile_folder(folder: Path) -> None:
    for number in range(2 * GOOD):
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        (folder / "ab"[number % 2] / f"{number:03d}.png").write_bytes(picture(100 + number))
    for name, data in odd_but_good().items():
        (folder / "b" / name).write_bytes(data)
    for name, (make, _) in BAD.items():
        path = folder / "a" / name
        path.write_bytes(make) if isinstance(make, bytes) else make(path)


def spec(folder: Path, **data: object) -> StudySpec:
    document = {
        "name": "hostile",
        "task": "image_classification",
        "data": {"source": str(folder / "in"), **data},
    }
    return study_spec(document)


def prepared(folder: Path, **data: object) -> dict[str, Any]:
    """Run the step on `folder/in`, with `folder/home` as home."""
    asked = spec(folder, **data).model_dump(mode="json", by_alias=True)
    done = subprocess.run(
        [sys.executable, "-m", "tests.measured_step", "prepare"],
        input=json.dumps({"spec": asked, "run": "one", "origin": "test"}),
        env={**os.environ, "AUTOML_HOME": str(folder / "home")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    ended: dict[str, Any] = json.loads(done.stdout)
    return ended


@pytest.mark.parametrize(
    "image_size",
    [
        512,  # many tasks, done by workers of the step
        pytest.param(32, marks=pytest.mark.soak),  # one task, done by the step itself
    ],
)
def test_sixty_kinds_are_used_or_named_with_their_reason_in_little_memory(
    tmp_path: Path, image_size: int
) -> None:
    write_hostile_folder(tmp_path / "in")
    good = odd_but_good()
    assert len(good) + len(BAD) >= 60

    ended = prepared(tmp_path, image_size=image_size, max_bad_fraction=0.5)

    print(f"peak {ended['peak_mb']:.0f} MB")  # noqa: T201 - a figure
    assert ended["failure"] == ""
    assert ended["peak_mb"] < MOST_MB
    store = open_home(Settings(str(tmp_path / "home"))).store
    snapshot = ImageSnapshot.open(store, "hostile", ended["result"]["snapshot"]).envelope
    reasons = {row.path: row.reason for row in snapshot.quarantined}
    assert set(reasons) == {f"a/{SHOWN.get(name, name)}" for name in BAD}
    for name, (_, reason) in BAD.items():
        assert reason in reasons[f"a/{SHOWN.get(name, name)}"]
    alike = {row.path for row in snapshot.excluded}  # one picture in many formats
    assert alike <= {f"b/{name}" for name in good}
    assert sum(snapshot.counts.values()) == 2 * GOOD + len(good) - len(alike)
    assert not any("Traceback" in line or "Warning" in line for line in ended["said"])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # as `decode` has it outside of tests
def test_a_failed_preparation_leaves_nothing_behind(tmp_path: Path) -> None:
    write_hostile_folder(tmp_path / "in")
    for path in (tmp_path / "in" / "b").glob("large*"):
        path.unlink()
    context = StepContext.open(Settings(str(tmp_path / "home")), spec(tmp_path), "one", "test")

    with pytest.raises(DataError, match=f"{len(BAD)} of the"):
        prepare(context, lambda *_: None)

    (told,) = [entry.key for entry in context.store.list("")]
    assert told == "studies/hostile/runs/one/problems.csv"
    left = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    others = [path for path in left if not str(path).endswith(told)]
    assert {path.parent.name for path in others} <= {".locks"}  # of keys, and empty
    assert sum(path.stat().st_size for path in others) == 0
