"""What every object store must do; run on memory, a folder, under databases, and on real S3."""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, timedelta
from pathlib import Path

import pytest

from automl.domain.settings import Settings
from automl.errors import (
    ConfigError,
    DamagedDataError,
    NotFoundError,
    PreconditionFailedError,
    StorageAccessError,
    StorageError,
)
from automl.storage.file import FileObjectStore
from automl.storage.home import Home
from automl.storage.memory import MemoryObjectStore
from automl.storage.objects import ObjectEntry, ObjectStore
from automl.storage.open import open_home, open_store
from automl.storage.probe import probe_conditional_writes
from automl.storage.s3.objects import S3ObjectStore
from automl.storage.s3.retries import S3Limits
from benchmarks.servers import SECRET_KEY, SeaweedServer
from tests.contention import contest
from tests.homes import IgnoringStore


@pytest.fixture
def store(home: Home) -> ObjectStore:
    """Every kind; under a database, of a store that ignores the conditions."""
    return home.store


def keys(store: ObjectStore, prefix: str = "", start_after: str = "") -> list[str]:
    return [entry.key for entry in store.list(prefix, start_after)]


def check_race(settings: Settings) -> None:
    winners = contest("create", settings)

    assert {len(ranks) for ranks in winners} == {1}
    stored = open_home(settings).store
    for number, (winner,) in enumerate(winners):
        assert stored.get(f"race/{number}").data == str(winner).encode()


class TestObjectStoreContract:
    def test_what_was_put_can_be_got(self, store: ObjectStore) -> None:
        store.put("a/b.bin", b"\x00content")

        stored = store.get("a/b.bin")

        assert stored.data == b"\x00content"
        assert stored.modified.tzinfo is UTC

    def test_an_object_may_be_empty(self, store: ObjectStore) -> None:
        store.put("empty", b"")

        assert store.get("empty").data == b""
        assert [entry.size_bytes for entry in store.list("empty")] == [0]

    def test_a_part_can_be_read(self, store: ObjectStore) -> None:
        store.put("a/key", b"0123456789")

        assert store.get_range("a/key", 0, 1) == b"0"
        assert store.get_range("a/key", 3, 4) == b"3456"
        assert store.get_range("a/key", 0, 10) == b"0123456789"

    def test_a_part_ends_where_the_content_does(self, store: ObjectStore) -> None:
        store.put("a/key", b"0123456789")
        store.put("empty", b"")

        assert store.get_range("a/key", 8, 1_000) == b"89"
        assert store.get_range("a/key", 10, 1) == b""
        assert store.get_range("a/key", 2**40, 2**40) == b""
        assert store.get_range("empty", 0, 1) == b""

    def test_a_part_of_what_is_missing_is_not_found(self, store: ObjectStore) -> None:
        store.put("folder/key", b"")

        for key in ("missing/key", "folder"):
            with pytest.raises(NotFoundError):
                store.get_range(key, 0, 1)
        with pytest.raises(ConfigError, match="not a key"):
            store.get_range("../up", 0, 1)

    def test_put_replaces_and_changes_the_etag(self, store: ObjectStore) -> None:
        store.put("key", b"one")
        first = store.get("key")
        store.put("key", b"two")
        second = store.get("key")

        assert first.etag != second.etag
        assert (first.data, second.data) == (b"one", b"two")

    def test_a_missing_key_is_not_found(self, store: ObjectStore, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match=r"no missing/key in"):
            store.get("missing/key")
        with pytest.raises(NotFoundError):
            store.download("missing/key", tmp_path / "file")
        assert not (tmp_path / "file").exists()

    def test_a_folder_of_keys_is_no_key(self, store: ObjectStore) -> None:
        store.put("folder/key", b"")

        with pytest.raises(NotFoundError):
            store.get("folder")

    def test_deleting_removes_and_may_be_repeated(self, store: ObjectStore) -> None:
        store.put("a/key", b"data")
        store.delete("a/key")
        store.delete("a/key")

        with pytest.raises(NotFoundError):
            store.get("a/key")
        assert keys(store) == []

    @pytest.mark.parametrize(
        "key", ["ünïcödé/Müsli.png", "with space/a b+c&d=e?f#g%20.txt", "日本"]
    )
    def test_keys_may_hold_unicode_spaces_and_signs(self, store: ObjectStore, key: str) -> None:
        store.put_if_absent(key, b"data")

        assert store.get(key).data == b"data"
        assert keys(store) == [key]
        assert keys(store, key[:3]) == [key]

    @pytest.mark.parametrize(
        "key", ["", "/etc/passwd", "../up", "a/../b", "a//b", "a/", "./a", "a\0"]
    )
    def test_what_is_no_relative_path_is_refused(self, store: ObjectStore, key: str) -> None:
        with pytest.raises(ConfigError, match="not a key"):
            store.put(key, b"")
        with pytest.raises(ConfigError, match="not a key"):
            store.get(key)

    def test_a_prefix_that_leaves_the_store_is_refused(self, store: ObjectStore) -> None:
        with pytest.raises(ConfigError, match="not a key"):
            list(store.list("../other/"))


class TestConditionalWrites:
    def test_put_if_absent_writes_once(self, store: ObjectStore) -> None:
        etag = store.put_if_absent("a/key", b"first")

        with pytest.raises(PreconditionFailedError, match="a/key exists"):
            store.put_if_absent("a/key", b"second")
        assert (store.get("a/key").data, store.get("a/key").etag) == (b"first", etag)

    def test_put_if_match_writes_over_what_was_read(self, store: ObjectStore) -> None:
        first = store.put_if_absent("key", b"one")
        second = store.put_if_match("key", b"two", first)

        assert (store.get("key").data, store.get("key").etag) == (b"two", second)
        store.put_if_match("key", b"three", second)
        assert store.get("key").data == b"three"

    def test_a_stale_put_if_match_changes_nothing(self, store: ObjectStore) -> None:
        stale = store.put_if_absent("key", b"one")
        store.put("key", b"two")

        with pytest.raises(PreconditionFailedError, match="has changed or is gone"):
            store.put_if_match("key", b"three", stale)
        assert store.get("key").data == b"two"

    def test_put_if_match_does_not_create(self, store: ObjectStore) -> None:
        etag = store.put_if_absent("key", b"one")
        store.delete("key")

        with pytest.raises(PreconditionFailedError):
            store.put_if_match("key", b"two", etag)
        assert keys(store) == []

    def test_of_sixteen_creators_one_wins(self, store: ObjectStore) -> None:
        barrier = threading.Barrier(16)

        def create(number: int) -> int | None:
            barrier.wait()
            try:
                store.put_if_absent("race", str(number).encode())
            except PreconditionFailedError:
                return None
            return number

        with ThreadPoolExecutor(16) as pool:
            winners = [number for number in pool.map(create, range(16)) if number is not None]

        assert [str(number).encode() for number in winners] == [store.get("race").data]

    def test_of_sixteen_processes_one_creates_each_object(self, settings: Settings) -> None:
        check_race(settings)

    @pytest.mark.soak
    def test_of_sixteen_processes_one_creates_each_object_in_many_rounds(
        self, settings: Settings
    ) -> None:
        check_race(settings)

    def test_concurrent_increments_are_all_counted(self, store: ObjectStore) -> None:
        store.put("counter", b"0")

        def increment(_: int) -> None:
            while True:
                stored = store.get("counter")
                try:
                    store.put_if_match("counter", b"%d" % (int(stored.data) + 1), stored.etag)
                except PreconditionFailedError:
                    continue
                return

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(increment, range(40)))

        assert store.get("counter").data == b"40"

    def test_readers_never_see_half_a_write(self, store: ObjectStore) -> None:
        contents = {bytes([letter]) * 300_000 for letter in b"abcd"}
        store.put("key", min(contents))
        over = threading.Event()

        def write() -> None:
            for _ in range(5):
                for content in contents:
                    store.put("key", content)
            over.set()

        writer = threading.Thread(target=write)
        writer.start()
        seen = {store.get("key").data for _ in range(10)}
        while not over.is_set():
            seen.add(store.get("key").data)
        writer.join()

        assert seen <= contents

    def test_the_probe_accepts_the_store_and_leaves_nothing(self, store: ObjectStore) -> None:
        probe_conditional_writes(store)

        assert keys(store) == []


class TestListing:
    def test_a_listing_is_sorted_by_key(self, store: ObjectStore) -> None:
        names = ["b", "a/z", "a-b", "a.b", "a/b/c", "ab", "a0", "é", "Z"]
        for name in names:
            store.put(name, name.encode())

        assert keys(store) == sorted(names)
        assert [entry.size_bytes for entry in store.list("a/")] == [len("a/b/c"), len("a/z")]

    def test_a_prefix_need_not_be_whole_segments(self, store: ObjectStore) -> None:
        for name in ["ab/1", "abc", "ac", "b/ab"]:
            store.put(name, b"")

        assert keys(store, "ab") == ["ab/1", "abc"]
        assert keys(store, "ab/") == ["ab/1"]
        assert keys(store, "nothing/here") == []

    def test_a_listing_starts_after_a_key_that_need_not_exist(self, store: ObjectStore) -> None:
        for name in ["a/1", "a/2", "a/3", "b/1"]:
            store.put(name, b"")

        assert keys(store, "", "a/1") == ["a/2", "a/3", "b/1"]
        assert keys(store, "a/", "a/20") == ["a/3"]
        assert keys(store, "", "a0") == ["b/1"]
        assert keys(store, "", "b/1") == []

    def test_folders_are_no_obstacle_to_the_order(self, store: ObjectStore) -> None:
        names = sorted(["a/z", "a-b", "a-c/1", "a.b", "a/b-c/1", "a/b/c", "a0", "ab"])
        for name in names:
            store.put(name, b"")

        for start in [*names, "a/", "a/b/", "a/b0", "a,"]:
            assert keys(store, "", start) == [name for name in names if name > start]

    def test_more_than_a_page_is_listed(self, store: ObjectStore) -> None:
        names = [f"many/{number % 7}/{number:05d}" for number in range(1_100)]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda name: store.put(name, b"x"), names))

        assert keys(store, "many/") == sorted(names)
        assert keys(store, "many/", sorted(names)[1_050]) == sorted(names)[1_051:]

    def test_the_etag_of_a_listing_changes_with_the_content(self, store: ObjectStore) -> None:
        def listed() -> ObjectEntry:
            return next(iter(store.list("key")))

        store.put("key", b"one")
        before = listed()
        store.put("key", b"two")

        assert listed().etag != before.etag
        assert listed().modified >= before.modified


class TestFiles:
    def test_a_large_file_survives_upload_and_download(
        self, store: ObjectStore, tmp_path: Path
    ) -> None:
        block = hashlib.sha256(b"block").digest()
        content = block * (20 * 2**20 // len(block)) + b"end"
        source, target = tmp_path / "source", tmp_path / "new" / "target"
        source.write_bytes(content)

        store.upload(source, "files/large.bin")
        store.download("files/large.bin", target)

        assert target.read_bytes() == content
        assert store.get("files/large.bin").data == content
        assert [path.name for path in target.parent.iterdir()] == ["target"]

    def test_a_missing_local_file_is_named(self, store: ObjectStore, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="no-such-file"):
            store.upload(tmp_path / "no-such-file", "key")

    def test_what_was_put_can_be_downloaded(self, store: ObjectStore, tmp_path: Path) -> None:
        store.put("key", b"small")
        (tmp_path / "file").write_bytes(b"something older and longer")
        store.download("key", tmp_path / "file")

        assert (tmp_path / "file").read_bytes() == b"small"


class TestClock:
    def test_the_clock_is_the_one_that_dates_objects(self, store: ObjectStore) -> None:
        before = store.now()
        store.put("key", b"")
        after = store.now()

        assert before.tzinfo is UTC
        tolerance = timedelta(seconds=1)  # S3 tells whole seconds
        assert before - tolerance <= store.get("key").modified <= after + tolerance


class RefusingStore(MemoryObjectStore):
    """A store whose conditional replacement never works, as with some servers."""

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        raise PreconditionFailedError(f"{key} {etag} {len(data)}")


class TestProbe:
    def test_a_store_that_ignores_conditions_is_refused(self) -> None:
        with pytest.raises(StorageAccessError, match=r"ignores .* AUTOML_STUDY_LOG"):
            probe_conditional_writes(IgnoringStore())

    def test_a_store_that_never_fulfils_conditions_is_refused(self) -> None:
        with pytest.raises(StorageAccessError, match=r"refuses .* AUTOML_STUDY_LOG"):
            probe_conditional_writes(RefusingStore())


class TestFileStore:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Iterator[Path]:
        folder = tmp_path / "read-only"
        folder.mkdir()
        (folder / "file").write_bytes(b"data")
        yield folder
        folder.chmod(0o755)

    def test_reading_creates_nothing(self, folder: Path) -> None:
        store = FileObjectStore(folder)
        store.get("file")

        assert keys(store) == ["file"]
        assert [path.name for path in folder.iterdir()] == ["file"]
        assert keys(FileObjectStore(folder / "missing")) == []

    def test_its_own_files_are_no_keys(self, folder: Path) -> None:
        store = FileObjectStore(folder)
        store.put_if_match("file", b"new", store.get("file").etag)

        assert keys(store) == ["file"]
        assert (folder / ".locks").is_dir()
        with pytest.raises(NotFoundError, match="reserved"):
            store.get(".locks/00")

    def test_a_key_below_another_key_is_refused(self, folder: Path) -> None:
        with pytest.raises(StorageError, match="file/below"):
            FileObjectStore(folder).put("file/below", b"")

    def test_its_uri_is_absolute(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

        assert open_store("some/home").uri == str(tmp_path / "some/home")
        assert open_store(f"file://{tmp_path}/a%20b").uri == f"{tmp_path}/a b"

    def test_it_can_be_pickled(self, folder: Path) -> None:
        assert pickle.loads(pickle.dumps(FileObjectStore(folder))).get("file").data == b"data"  # noqa: S301


class TestOpenStore:
    @pytest.mark.parametrize("uri", ["", "gs://bucket", "s3://", "file://host/x", "s3://a@b/c"])
    def test_what_names_no_store_is_refused(self, uri: str) -> None:
        with pytest.raises(ConfigError, match="use a folder"):
            open_store(uri)

    @pytest.mark.parametrize(
        ("uri", "expected"),
        [("s3://bucket", "s3://bucket"), ("s3://bucket/a/b/", "s3://bucket/a/b")],
    )
    def test_an_s3_address_needs_no_server_to_be_opened(self, uri: str, expected: str) -> None:
        assert open_store(uri).uri == expected


class TestS3Store:
    def test_it_can_be_pickled(self, s3_store_uri: str) -> None:
        store = open_store(s3_store_uri)
        store.put("key", b"data")

        assert pickle.loads(pickle.dumps(store)).get("key").data == b"data"  # noqa: S301

    def test_prefixes_are_apart(self, s3_store_uri: str) -> None:
        store, other = open_store(s3_store_uri), open_store(s3_store_uri + "-more")
        store.put("key", b"data")
        other.put("other", b"data")

        assert keys(store) == ["key"]

    def test_a_changed_upload_is_noticed(self, s3_store_uri: str, tmp_path: Path) -> None:
        import boto3

        store = open_store(s3_store_uri)
        bucket, _, prefix = s3_store_uri.removeprefix("s3://").partition("/")
        boto3.client("s3").put_object(
            Bucket=bucket, Key=f"{prefix}/key", Body=b"wrong", Metadata={"sha256": "0" * 64}
        )

        with pytest.raises(DamagedDataError, match="SHA-256"):
            store.download("key", tmp_path / "file")
        assert list(tmp_path.glob("*file*")) == []

    def test_a_wrong_secret_is_named_but_not_told(
        self, s3_server: SeaweedServer, s3_store_uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-value")
        store = open_store(s3_store_uri)

        for call in (lambda: store.put("key", b""), lambda: store.get("key"), store.now):
            with pytest.raises(StorageAccessError) as caught:
                call()
            text = str(caught.value)
            assert s3_server.endpoint in text
            assert s3_server.bucket in text
            assert "wrong-secret-value" not in text
            assert SECRET_KEY not in text

    def test_a_failed_upload_is_explained(
        self, s3_store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-value")
        (tmp_path / "file").write_bytes(b"data")

        with pytest.raises(StorageAccessError, match="SignatureDoesNotMatch"):
            open_store(s3_store_uri).upload(tmp_path / "file", "key")

    def test_missing_credentials_are_explained(
        self, s3_store_uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

        with pytest.raises(StorageAccessError, match=r"no usable credentials .*AWS_PROFILE"):
            open_store(s3_store_uri).get("key")

    @pytest.mark.usefixtures("s3_store_uri")
    def test_a_missing_bucket_is_an_access_error(self) -> None:
        store = S3ObjectStore("no-such-bucket-here")

        for call in (lambda: store.get("key"), lambda: list(store.list("")), store.now):
            with pytest.raises(StorageAccessError, match="create the bucket"):
                call()

    def test_an_unreachable_server_may_be_tried_again(
        self, s3_store_uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:hidden@127.0.0.1:9")

        store = S3ObjectStore(s3_store_uri.split("/")[2], limits=S3Limits(total_s=0.5))

        with pytest.raises(StorageError, match=r"127\.0\.0\.1:9 cannot be reached") as caught:
            store.get("key")
        assert caught.value.retryable
        assert "hidden" not in str(caught.value)
