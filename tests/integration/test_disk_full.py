"""A disk that is full for a while costs a worker at most what it did since its last checkpoint.

The limit on file sizes is met on every machine; where users may mount file systems of their own, a
full one is met too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from automl.errors import StorageFullError
from automl.storage.file import FileObjectStore
from tests.full_disk import ROOM

NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]


def can_mount() -> bool:
    """Whether an unprivileged user may mount a file system."""
    command = [*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


QUOTAS = ["limit", "tmpfs"] if can_mount() else ["limit"]


def each_quota(always: str) -> pytest.MarkDecorator:
    """Return what gives a test every kind of full disk, but all except one in the soak only.

    Args:
        always: that one, if this machine has it.
    """
    first = always if always in QUOTAS else QUOTAS[0]
    quotas = [
        pytest.param(quota, marks=() if quota == first else pytest.mark.soak) for quota in QUOTAS
    ]
    return pytest.mark.parametrize("quota", quotas)


def play(scene: str, quota: str, folder: Path) -> dict[str, Any]:
    """Return what `tests.full_disk` tells of the scene."""
    done = subprocess.run(
        [
            *(NAMESPACE if quota == "tmpfs" else []),
            *(sys.executable, "-m", "tests.full_disk", scene, quota, str(folder)),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def require_clear(failure: dict[str, Any], folder: Path) -> None:
    """Require an error that may pass and says what is full and what to do."""
    assert failure["type"] == "StorageFullError"
    assert failure["retryable"]
    assert f"{folder / 'home'}, which is full" in failure["message"]
    assert "make room there or raise the quota" in failure["hint"]
    assert (StorageFullError.exit_code, StorageFullError.retryable) == (4, True)


def require_completed(seen: dict[str, Any]) -> None:
    """Require that the next worker ended the search, its only trial observed once."""
    assert seen["ended"]["failure"] is None
    (trial,) = seen["after"]["trials"]
    assert (trial["outcome"], trial["deaths"]) == ("completed", 0)
    assert seen["after"]["ends"] == 1


@each_quota(always="tmpfs")
def test_a_full_disk_during_a_checkpoint_costs_what_came_after_the_one_before(
    tmp_path: Path, quota: str
) -> None:
    seen = play("checkpoint", quota, tmp_path)

    require_clear(seen["failed"]["failure"], tmp_path)
    assert "trials/0/1/checkpoint-" in seen["failed"]["failure"]["message"]
    during = seen["during"]  # what could be read there was read: all checkpoints and the log
    assert min(during["sizes"]) > ROOM
    assert during["temporary"] == []
    (trial,) = during["trials"]
    assert (trial["attempt"], trial["outcome"]) == (1, None)
    require_completed(seen)
    (trial,) = seen["after"]["trials"]
    assert (trial["attempt"], trial["resumed_at"]) == (2, max(during["epochs"]))
    assert any("trial 0 is given back: " in line for line in seen["lines"])


@each_quota(always="limit")
def test_a_full_disk_during_an_append_leaves_the_log_as_it_was(tmp_path: Path, quota: str) -> None:
    seen = play("append", quota, tmp_path)

    require_clear(seen["failed"]["failure"], tmp_path)
    wanted = f"studies/digits/log/{seen['during']['version'] + 1:012}.json cannot be written"
    assert wanted in seen["failed"]["failure"]["message"]
    assert seen["during"]["temporary"] == []
    assert all(trial["attempt"] == 0 for trial in seen["during"]["trials"])
    require_completed(seen)


def test_no_room_for_a_file_is_told_from_other_trouble(tmp_path: Path) -> None:
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from automl.errors import StorageFullError\n"
        "from automl.storage.file import FileObjectStore\n"
        "store = FileObjectStore(Path(sys.argv[1]))\n"
        "etag = store.put_if_absent('key', b'before')\n"
        "source = Path(sys.argv[2])\n"
        "source.write_bytes(bytes(5000))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "for call in (\n"
        "    lambda: store.put('key', bytes(1001)),\n"
        "    lambda: store.put_if_absent('new', bytes(1001)),\n"
        "    lambda: store.put_if_match('key', bytes(1001), etag),\n"
        "    lambda: store.upload(source, 'key'),\n"
        "):\n"
        "    try:\n"
        "        call()\n"
        "    except StorageFullError as error:\n"
        "        print(error.message)\n"
    )
    home = tmp_path / "home"

    done = subprocess.run(
        [sys.executable, "-c", code, str(home), str(tmp_path / "source")],
        capture_output=True,
        text=True,
        check=True,
    )

    messages = done.stdout.splitlines()
    assert [message.split(" ")[0] for message in messages] == ["key", "new", "key", "key"]
    assert all(message.endswith("which is full: File too large.") for message in messages)
    store = FileObjectStore(home)
    assert [entry.key for entry in store.list("")] == ["key"]
    assert store.get("key").data == b"before"
    assert list((home / ".tmp").iterdir()) == []
