"""No reader ever sees half a file, whenever its writer is killed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from automl.errors import NotFoundError
from automl.storage.durable import write_file, written_file
from automl.storage.file import FileObjectStore
from tests.writing import KEYS, is_whole

WRITERS = 2
DAY_S = 86_400


class Reader:
    """Reads all keys again and again, also while writers are killed."""

    def __init__(self, store: FileObjectStore) -> None:
        self.seen: Counter[str] = Counter()
        self.broken: list[str] = []
        self._store, self._over = store, threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._over.is_set():
            for key in KEYS:
                try:
                    content = self._store.get(key).data
                except NotFoundError:
                    continue
                self.seen[key] += 1
                if not is_whole(content):
                    self.broken.append(key)


@pytest.mark.parametrize("kills", [12, pytest.param(400, marks=pytest.mark.soak)])
def test_no_half_written_object_is_ever_visible(tmp_path: Path, kills: int) -> None:
    home, rng = tmp_path / "home", random.Random(7)  # noqa: S311 - no secret
    store = FileObjectStore(home)
    writers: list[subprocess.Popen[bytes]] = []

    def start(seed: int) -> subprocess.Popen[bytes]:
        arguments = [str(home), str(tmp_path / f"source-{seed}"), str(seed)]
        return subprocess.Popen([sys.executable, "-m", "tests.writing", *arguments])

    def written_by(seed: int) -> bool:
        return any(True for _ in store.list(f"absent/{seed}-"))

    with Reader(store) as reader:
        writers = [start(seed) for seed in range(WRITERS)]
        for kill in range(kills):
            seed = kill  # the writer that has lived longest
            while not written_by(seed):
                assert writers[seed].poll() is None
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.1))
            writers[seed].kill()
            writers[seed].wait()
            writers.append(start(len(writers)))
        for writer in writers[kills:]:
            writer.kill()
            writer.wait()

    assert reader.broken == []
    assert set(reader.seen) >= {"put", "put_if_match", "upload"}
    entries = list(store.list(""))
    assert all(is_whole(store.get(entry.key).data) for entry in entries)
    assert len([entry for entry in entries if entry.key.startswith("absent/")]) >= kills


def test_what_dead_writers_left_is_swept_after_a_day(tmp_path: Path) -> None:
    FileObjectStore(tmp_path).put("key", b"content")
    old, young = tmp_path / ".tmp" / ".tmp-old", tmp_path / ".tmp" / ".tmp-young"
    for path, age_s in ((old, DAY_S + 60), (young, DAY_S - 60)):
        path.write_bytes(b"half a cont")
        written_s = time.time() - age_s
        os.utime(path, (written_s, written_s))

    store = FileObjectStore(tmp_path)
    assert store.get("key").data == b"content"
    assert old.exists()  # reading changes nothing
    store.put("key", b"more")

    assert sorted((tmp_path / ".tmp").iterdir()) == [young]
    assert [entry.key for entry in store.list("")] == ["key"]


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"one", b"another"):
        write_file(path, content)

        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(file: object) -> None:
        raise ValueError("no content")

    with pytest.raises(ValueError, match="no content"), written_file(tmp_path, fail):
        pytest.fail("there is no file to give a name to")
    assert list(tmp_path.iterdir()) == []
