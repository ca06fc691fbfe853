"""Several preparations of one dataset at once give one snapshot, and a killed one none."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from automl.data.splits import Part
from automl.domain.settings import Settings
from automl.errors import NotFoundError
from automl.storage.objects import ObjectStore
from automl.storage.open import open_home
from automl.tracks.image.snapshot import ImageSnapshot
from tests.digits import write_digits

DATASET = "digits"
DAY_S = 86_400
ROWS = 700


@pytest.fixture(params=["file", "s3"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return str(tmp_path / "home")
    return str(request.getfixturevalue("s3_store_uri"))


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    """A study whose shard of training rows takes longer than all the others."""
    source = write_digits(tmp_path / "rows.npz", ROWS)
    return {
        "name": DATASET,
        "task": "image_classification",
        "data": {"source": str(source), "image_size": 64, "validation_fraction": 0.05},
    }


def preparation(
    home: str, spec: dict[str, Any], count: int, killed_after: str = ""
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.preparing", home, json.dumps(spec), str(count)),
            killed_after,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        start_new_session=True,  # so that it can be killed with its children
    )


def given(process: subprocess.Popen[str]) -> list[tuple[str, bool]]:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return [(name, reused) for name, reused in json.loads(output)]


def require_whole(store: ObjectStore, snapshot: str, leftovers: frozenset[str]) -> None:
    """Require that the home holds the snapshot, all of it, and nothing but `leftovers` beside it.

    Args:
        store: the home.
        snapshot: its id.
        leftovers: keys that a killed preparation had written.
    """
    opened = ImageSnapshot.open(store, DATASET, snapshot)
    prefix = f"datasets/{DATASET}/{snapshot}/"
    envelope = opened.envelope
    assert envelope.index is not None
    assert envelope.sealed is not None
    indices = envelope.index, envelope.sealed
    stored = {each.key: each for each in (*envelope.blocks, *envelope.files, *indices)}
    keys = {entry.key for entry in store.list("")}
    sources = {key for key in keys if "/sources/" in key and key.endswith(".json")}
    pages = {key for key in keys if "/page-" in key}
    assert len(pages) == len(envelope.blocks) + len(envelope.files)
    thumbnails = {key for key in keys if "/thumbnails-" in key}
    assert len(thumbnails) == len(envelope.blocks)
    own = {prefix + name for name in ("manifest.json", "preprocess.onnx", "report.html")}
    expected = {*stored, *own, *sources, *pages, *thumbnails}
    assert keys - leftovers == expected - leftovers
    assert leftovers <= expected  # what a killed one had written is a part of the same snapshot
    assert {json.loads(store.get(key).data)["snapshot"] for key in sources} == {snapshot}
    for key, block in stored.items():
        data = store.get(key).data
        assert (len(data), hashlib.sha256(data).hexdigest()) == (block.size_bytes, block.sha256)
    images, labels = opened.tensors(*Part)
    assert len(images) == len(labels) == sum(opened.envelope.counts.values()) == ROWS


def temporary_files(home: str) -> list[Path]:
    return list(Path(home).glob("**/.tmp/*")) if "://" not in home else []


def test_four_preparations_at_once_give_one_snapshot(home: str, spec: dict[str, Any]) -> None:
    results = given(preparation(home, spec, 4))

    assert len(results) == 4
    (snapshot,) = {name for name, _ in results}
    assert [reused for _, reused in results].count(False) == 1  # one of them wrote the manifest
    require_whole(open_home(Settings(home)).store, snapshot, frozenset())
    assert temporary_files(home) == []


def test_a_killed_preparation_leaves_no_snapshot_and_the_next_completes_it(
    home: str, spec: dict[str, Any]
) -> None:
    store = open_home(Settings(home)).store
    process = preparation(home, spec, 1, ".safetensors")
    _, errors = process.communicate()
    assert "a process ended with -9" in errors

    written = frozenset(entry.key for entry in store.list(""))
    assert not any(key.endswith(".json") for key in written)
    with pytest.raises(NotFoundError):
        ImageSnapshot.open(store, DATASET, "0" * 20)

    (result,) = given(preparation(home, spec, 1))

    snapshot, reused = result
    assert not reused
    require_whole(store, snapshot, written)


def test_what_a_killed_preparation_was_writing_is_swept_after_a_day(
    tmp_path: Path, spec: dict[str, Any]
) -> None:
    home = str(tmp_path / "home")
    folder = Path(home) / ".tmp"
    folder.mkdir(parents=True)
    old, young = folder / ".tmp-old", folder / ".tmp-young"
    for path, age_s in ((old, DAY_S + 3600), (young, DAY_S - 3600)):
        path.write_bytes(b"half of a shar")
        written_s = time.time() - age_s
        os.utime(path, (written_s, written_s))

    given(preparation(home, spec, 1))

    assert temporary_files(home) == [young]
