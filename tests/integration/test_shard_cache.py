"""Copies of shards: fewer requests, and nothing that is not what the snapshot says."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from automl.data.snapshot import Envelope, read_shards, write_envelope, write_shard
from automl.domain.layout import SnapshotKeys, shard_digest
from automl.domain.settings import Settings
from automl.errors import ConfigError
from automl.storage.file import FileObjectStore
from automl.storage.memory import MemoryObjectStore
from automl.storage.objects import ObjectStore
from automl.storage.open import open_store
from automl.storage.shard_cache import CachedShards, ShardCache, snapshot_files
from tests.faulty_proxy import FaultyProxy

ROWS = 20_000  # of 10 bytes


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def snapshot_of(store: ObjectStore, shards: int = 4) -> Envelope:
    keys, rng = SnapshotKeys("rows", "a" * 20), np.random.default_rng(0)
    parts = [
        write_shard(store, keys, "train", ROWS, {"x": rng.integers(0, 9, (ROWS, 10), np.uint8)})
        for _ in range(shards)
    ]
    return write_envelope(
        store,
        Envelope.model_validate(
            {"id": keys.snapshot, "dataset": "rows", "counts": {"train": shards * ROWS},
             "shards": parts, "source": "here"}
        ),
    )  # fmt: skip


def read_all(files: CachedShards | ObjectStore, envelope: Envelope) -> list[bytes]:
    return [content["x"].tobytes() for _, content in read_shards(files, envelope, "train")]


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    return ShardCache(tmp_path / "cache", 10**7)


@pytest.fixture
def kept(cache: ShardCache) -> tuple[CachedShards, Envelope]:
    """Store of a snapshot whose shards have all been read once."""
    files = CachedShards(store := MemoryObjectStore(), cache)
    envelope = snapshot_of(store)
    read_all(files, envelope)
    return files, envelope


def test_a_second_slice_fetches_no_shard(
    faulty_s3: FaultyProxy, s3_store_uri: str, tmp_path: Path
) -> None:
    settings = Settings.from_environment({"AUTOML_CACHE": str(tmp_path), "AUTOML_HOME": "/home"})
    envelope = snapshot_of(open_store(s3_store_uri))
    bodies = sum(shard.size_bytes for shard in envelope.shards)

    seen = []
    for _ in range(2):
        before = len(faulty_s3.requests)
        files = snapshot_files(open_store(s3_store_uri), settings)
        found = Envelope.read(files, "rows", envelope.id)
        content = read_all(files, found)
        seen.append([request.path for request in faulty_s3.requests[before:]])

    assert bodies > 800_000
    assert len(seen[0]) == 1 + len(envelope.shards)
    (only,) = seen[1]
    assert only.endswith("manifest.json")
    assert content == read_all(open_store(s3_store_uri), envelope)


def test_a_home_on_this_machine_is_not_copied(tmp_path: Path) -> None:
    store = FileObjectStore(tmp_path)

    assert snapshot_files(store, Settings("/home", cache=str(tmp_path))) is store


def test_settings_say_where_and_how_much(tmp_path: Path) -> None:
    given = {"AUTOML_CACHE": str(tmp_path), "AUTOML_CACHE_SIZE": "5MB"}
    cache = ShardCache.of(Settings.from_environment(given))
    assert cache == ShardCache(tmp_path / f"automl-cache-{os.geteuid()}", 5 * 10**6)

    assert ShardCache.of(Settings.from_environment({"AUTOML_CACHE": "off"})) is None
    assert ShardCache.of(Settings.from_environment({})) is not None
    for wrong in ({"AUTOML_CACHE": "here"}, {"AUTOML_CACHE_SIZE": "much"}):
        with pytest.raises(ConfigError, match="AUTOML_CACHE"):
            Settings.from_environment(wrong)


@pytest.mark.parametrize(
    "key", ["datasets/d/s/manifest.json", "datasets/d/s/train-0.safetensors",
            "studies/d/trials/1/1/train-0123456789abcdef.safetensors"]
)  # fmt: skip
def test_nothing_but_shards_is_copied(cache: ShardCache, key: str) -> None:
    store = MemoryObjectStore()
    store.put(key, b"one")

    assert shard_digest(key) is None
    assert CachedShards(store, cache).get(key).data == b"one"
    store.put(key, b"two")
    assert CachedShards(store, cache).get(key).data == b"two"
    assert not cache.folder.exists()


@pytest.mark.parametrize("planted", [b"", b"planted", None])
def test_a_copy_that_is_not_what_its_name_says_is_thrown_away(
    kept: tuple[CachedShards, Envelope], planted: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    files, envelope = kept
    expected = read_all(files.store, envelope)
    for path in files.cache.folder.glob("[0-9a-f]*"):
        path.write_bytes(path.read_bytes()[:-1] if planted is None else planted)

    with caplog.at_level(logging.WARNING):
        assert read_all(files, envelope) == expected
    assert "is damaged, and thrown away" in caplog.text
    assert all(digest_of(p.read_bytes()) == p.name for p in files.cache.folder.glob("[0-9a-f]*"))


def test_links_and_pipes_are_not_followed_or_opened(
    kept: tuple[CachedShards, Envelope], tmp_path: Path
) -> None:
    files, envelope = kept
    expected = read_all(files.store, envelope)
    (one, two, *_) = sorted(files.cache.folder.glob("[0-9a-f]*"))
    one.unlink()
    one.symlink_to("/etc/passwd")
    two.unlink()
    os.mkfifo(two)

    assert read_all(files, envelope) == expected
    assert Path("/etc/passwd").stat().st_size


@pytest.mark.parametrize("mode", [0o777, 0o750, 0o707])
def test_a_folder_that_others_may_enter_is_not_used(
    kept: tuple[CachedShards, Envelope], mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    files, envelope = kept
    folder = files.cache.folder
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.glob("[0-9a-f]*"):
        path.unlink()
    folder.chmod(mode)

    assert read_all(files, envelope) == read_all(files.store, envelope)
    assert "no private folder" in caplog.text
    assert not list(folder.glob("[0-9a-f]*"))


def test_a_link_in_place_of_the_folder_is_not_used(cache: ShardCache, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    cache.folder.symlink_to(tmp_path / "theirs")

    cache.keep(digest_of(b"data"), b"data")

    assert not list((tmp_path / "theirs").iterdir())
    assert cache.read(digest_of(b"data")) is None


def test_what_is_not_what_its_digest_says_is_never_kept(cache: ShardCache) -> None:
    cache.keep(digest_of(b"data"), b"other")

    assert not cache.folder.exists()


def test_the_copies_that_were_not_read_for_longest_go_first(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache", 100)
    contents = [bytes([number]) * 30 for number in range(4)]
    for number, data in enumerate(contents[:3]):
        cache.keep(digest_of(data), data)
        os.utime(cache.folder / digest_of(data), (number, number))
    assert cache.read(digest_of(contents[0])) == contents[0]

    cache.keep(digest_of(contents[3]), contents[3])

    found = [cache.read(digest_of(data)) is not None for data in contents]
    assert found == [True, False, True, True]
    cache.keep(digest_of(bytes(101)), bytes(101))
    assert cache.read(digest_of(bytes(101))) is None
    assert [cache.read(digest_of(data)) is not None for data in contents] == found


def test_what_a_dead_writer_left_is_removed(cache: ShardCache) -> None:
    cache.keep(digest_of(b"one"), b"one")
    (cache.folder / "0123456789abcdef.partial").write_bytes(b"half")

    cache.keep(digest_of(b"two"), b"two")

    assert {path.name for path in cache.folder.iterdir()} == {
        ".lock", digest_of(b"one"), digest_of(b"two")
    }  # fmt: skip


def _many(folder: Path, seed: int, wrong: multiprocessing.SimpleQueue[str]) -> None:
    cache, rng = ShardCache(folder, 5_000), np.random.default_rng(seed)
    for _ in range(150):
        data = bytes([int(rng.integers(8))]) * 1_000
        found = cache.read(digest_of(data))
        if found not in {None, data}:
            wrong.put(digest_of(data))
        cache.keep(digest_of(data), data)
        sizes = []
        for path in folder.glob("[0-9a-f]*"):
            try:
                sizes.append(path.stat().st_size)
            except FileNotFoundError:
                continue
        if sum(sizes) > 6_000:  # one more may have come while the folder was listed
            wrong.put(f"{sum(sizes)} bytes")


def test_many_processes_share_a_folder(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    wrong: multiprocessing.SimpleQueue[str] = fork.SimpleQueue()
    processes = [
        fork.Process(target=_many, args=(tmp_path / "cache", seed, wrong)) for seed in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0] * 4
    assert wrong.empty()
    assert len(list((tmp_path / "cache").glob("[0-9a-f]*"))) <= 5
    assert not list((tmp_path / "cache").glob("*.partial"))


def test_a_full_or_missing_disk_changes_nothing(tmp_path: Path) -> None:
    store, cache = MemoryObjectStore(), ShardCache(Path("/proc/automl-cache"), 10**6)
    envelope = snapshot_of(store)

    assert read_all(CachedShards(store, cache), envelope) == read_all(store, envelope)
