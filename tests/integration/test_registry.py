import hashlib
import json
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automl.errors import (
    DamagedDataError,
    ExportError,
    NewerSchemaError,
    NotFoundError,
    StorageError,
    VerificationError,
)
from automl.morphism.architecture import Architecture, Node, Op
from automl.onnx.model import OnnxModel
from automl.publishing.manifest import Promotion, VersionFacts
from automl.publishing.promotions import version_before
from automl.publishing.registry import Registry
from automl.publishing.verify import require_verified, verify_files
from automl.storage.file import FileObjectStore
from automl.storage.objects import ObjectStore
from automl.tracks.image.onnx import build_onnx
from automl.tracks.image.resize import resize_graph
from automl.tracks.image.sample_rows import ImageSamples
from tests.versions import facts

NOW = datetime(2026, 3, 1, 4, 5, 6, tzinfo=UTC)
STUDY = "greens"
LABELS = ("basil", "cress", "radish")
MEAN, STD = (128.0, 128.0, 128.0), (64.0, 64.0, 64.0)


def _model(seed: int = 0) -> bytes:
    nodes = (
        Node(Op.INPUT),
        Node(Op.GLOBAL_POOL, (0,)),
        Node(Op.DENSE, (1,), {"units": len(LABELS)}),
    )
    rng = np.random.default_rng(seed)
    weights = {
        "2.weight": rng.normal(size=(3, 3)).astype(np.float32),
        "2.bias": rng.normal(size=3).astype(np.float32),
    }
    graph = resize_graph(8).SerializeToString(deterministic=True)
    metadata = {"study": STUDY, "version": "1", "snapshot": "abc"}
    return build_onnx(
        Architecture(8, 3, nodes),
        weights,
        MEAN,
        STD,
        preprocess=graph,
        labels=LABELS,
        metadata=metadata,
    )


MODEL = _model()


def _images() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    sizes = [(8, 8), (13, 5), (8, 8), (30, 41)]
    return [rng.integers(0, 256, size=(*size, 3), dtype=np.uint8) for size in sizes]


def _samples(images: list[np.ndarray]) -> bytes:
    model, feeds = OnnxModel(MODEL), [{"image": image[None]} for image in images]
    return ImageSamples().pack(
        feeds, np.concatenate([model.predict(feed).values for feed in feeds])
    )


SAMPLES = _samples(_images())


def _facts(run: str) -> VersionFacts:
    return facts(run).model_copy(update={"labels": LABELS})


def _publish(registry: Registry, run: str) -> int:
    version = registry.claim_version(run)
    registry.write(
        version,
        {"model.onnx": MODEL, "samples.npz": SAMPLES, "report.html": b"<p>"},
        _facts(run),
    )
    return version


@pytest.fixture
def store(tmp_path: Path) -> FileObjectStore:
    return FileObjectStore(tmp_path / "home")


@pytest.fixture
def registry(store: FileObjectStore) -> Registry:
    return Registry(store, STUDY)


def flipped(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


def _document(store: ObjectStore, key: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(store.get(f"models/{STUDY}/{key}").data)
    return document


def test_a_run_finds_its_own_version_again(registry: Registry, store: FileObjectStore) -> None:
    assert [registry.claim_version(run) for run in ("a", "b", "a", "c", "b")] == [1, 2, 1, 3, 2]
    assert _document(store, "2/claim.json") == {"schema": 1, "run": "b"}


def test_a_version_exists_when_its_manifest_does(registry: Registry) -> None:
    version = registry.claim_version("a")
    registry.put_file(version, "model.onnx", MODEL)
    assert not registry.exists(version)
    assert registry.versions() == ()

    _publish(registry, "a")

    assert registry.exists(version)
    assert registry.versions() == (version,)


def test_gaps_in_versions_are_allowed_and_order_is_numeric(registry: Registry) -> None:
    registry.claim_version("lost")
    for number in range(2, 12):
        _publish(registry, f"run-{number}")

    assert registry.versions() == tuple(range(2, 12))


def test_the_manifest_is_stored_as_documented(registry: Registry, store: FileObjectStore) -> None:
    version = registry.claim_version("a")
    registry.put_file(version, "model.onnx", MODEL)
    manifest = registry.write(version, {"samples.npz": SAMPLES}, _facts("a"))

    document = _document(store, "1/manifest.json")
    assert document["schema"] == 1
    assert (document["study"], document["version"], document["run"]) == (STUDY, 1, "a")
    assert document["labels"] == list(LABELS)
    assert document["input"] == {"decode": "rgb8", "resize": "stretch", "size": 8}
    assert document["metrics"]["accuracy"] == {"value": 0.9, "low": 0.8, "high": 0.95, "n": 100}
    assert document["latency_ms"] == {"1": {"p50": 0.5, "p95": 0.75}, "threads": 1}
    assert document["files"] == {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in [("model.onnx", MODEL), ("samples.npz", SAMPLES)]
    }
    assert registry.manifest(1) == manifest


def test_publishing_twice_changes_nothing(registry: Registry, store: FileObjectStore) -> None:
    _publish(registry, "a")
    before = store.get(f"models/{STUDY}/1/manifest.json")

    _publish(registry, "a")

    assert store.get(f"models/{STUDY}/1/manifest.json") == before
    assert registry.versions() == (1,)


def test_a_published_file_cannot_change(registry: Registry) -> None:
    version = _publish(registry, "a")

    registry.put_file(version, "model.onnx", MODEL)
    with pytest.raises(ExportError, match=r"its model\.onnx cannot change"):
        registry.put_file(version, "model.onnx", MODEL + b"x")


def test_the_first_bytes_of_a_file_stay(registry: Registry) -> None:
    version = registry.claim_version("a")
    registry.put_file(version, "report.html", b"first")
    registry.put_file(version, "model.onnx", MODEL)

    manifest = registry.write(version, {"report.html": b"second"}, _facts("a"))

    assert registry.read(version, "report.html") == b"first"
    assert manifest.files["report.html"].bytes == 5
    assert verify_files(registry, version)["ok"]


def test_a_file_that_changed_before_it_was_published_is_refused(
    registry: Registry, store: FileObjectStore
) -> None:
    version = registry.claim_version("a")
    registry.put_file(version, "model.onnx", MODEL)
    stored = {"model.onnx": registry.describe(version, "model.onnx")}
    registry.require_stored(version, stored)
    store.put(f"models/{STUDY}/1/model.onnx", flipped(MODEL))

    with pytest.raises(DamagedDataError, match=r"1/model\.onnx has changed since the export"):
        registry.require_stored(version, stored)


def test_a_manifest_lists_the_checksums_that_are_known(
    registry: Registry, store: FileObjectStore
) -> None:
    version = registry.claim_version("a")
    registry.put_file(version, "model.onnx", MODEL)
    stored = {"model.onnx": registry.describe(version, "model.onnx")}
    store.put(f"models/{STUDY}/1/model.onnx", flipped(MODEL))

    manifest = registry.write(version, {}, _facts("a"), stored)

    assert manifest.files == stored
    with pytest.raises(DamagedDataError, match=r"1/model\.onnx has SHA-256"):
        registry.read(version, "model.onnx")


@pytest.mark.parametrize("name", ["manifest.json", "claim.json", "../x", "a/b", ""])
def test_reserved_and_foreign_file_names_are_refused(registry: Registry, name: str) -> None:
    with pytest.raises(ExportError, match="cannot have a file named"):
        registry.put_file(registry.claim_version("a"), name, b"")


def test_a_version_of_another_run_cannot_be_published(registry: Registry) -> None:
    version = registry.claim_version("a")

    with pytest.raises(ExportError, match="belongs to run a, not b"):
        registry.write(version, {"model.onnx": MODEL}, _facts("b"))


def test_a_version_without_a_network_cannot_be_published(registry: Registry) -> None:
    with pytest.raises(ExportError, match=r"has no model\.onnx"):
        registry.write(registry.claim_version("a"), {"report.html": b"<p>"}, _facts("a"))


def test_an_unknown_version_is_named(registry: Registry) -> None:
    with pytest.raises(NotFoundError, match="Study greens has no version 7"):
        registry.manifest(7)
    with pytest.raises(NotFoundError, match="has no version 7"):
        registry.promote(7, "me", "", NOW)


def test_a_manifest_of_a_newer_version_is_refused(
    registry: Registry, store: FileObjectStore
) -> None:
    store.put(f"models/{STUDY}/1/manifest.json", b'{"schema": 2}')
    store.put(f"models/{STUDY}/2/manifest.json", b"{")

    with pytest.raises(NewerSchemaError, match="schema 2; this version reads up to 1"):
        registry.manifest(1)
    with pytest.raises(DamagedDataError, match=r"2/manifest\.json is no manifest"):
        registry.manifest(2)


def test_a_promotion_is_recorded_and_moves_the_champion(
    registry: Registry, store: FileObjectStore
) -> None:
    assert registry.champion() is None
    _publish(registry, "a")
    _publish(registry, "b")

    local = NOW.astimezone(timezone(timedelta(hours=5)))
    registry.promote(1, "run a", "It is the first version.", local)
    change = registry.promote(2, "mia", "I like it.", NOW + timedelta(days=1))

    assert _document(store, "promotions/1.json") == {
        "schema": 1,
        "who": "run a",
        "when": "2026-03-01T04:05:06+00:00",
        "why": "It is the first version.",
        "from": None,
        "to": 1,
    }
    assert (change.number, change.is_new) == (2, True)
    assert (_document(store, "promotions/2.json")["from"], change.promotion.to_version) == (1, 2)
    assert _document(store, "champion.json") == {
        "schema": 1,
        "version": 2,
        "uri": "2/model.onnx",
        "sha256": hashlib.sha256(MODEL).hexdigest(),
        "promoted_at": "2026-03-02T04:05:06+00:00",
        "promotion": 2,
    }
    champion = registry.champion()
    assert champion is not None
    assert (champion.version, champion.promotion) == (2, 2)


def test_promoting_the_champion_again_changes_nothing(registry: Registry) -> None:
    _publish(registry, "a")
    first = registry.promote(1, "run a", "first", NOW)

    again = registry.promote(1, "run a", "first", NOW + timedelta(hours=1))
    assert (again.number, again.promotion) == (first.number, first.promotion)
    assert (first.is_new, again.is_new) == (True, False)
    assert list(registry.promotions()) == [1]


def test_a_step_that_runs_again_does_not_undo_a_rollback(registry: Registry) -> None:
    for run in ("a", "b"):
        registry.promote_once(_publish(registry, run), f"run {run}", lambda _: "better", NOW)
    registry.promote(1, "mia", "version 2 is slow", NOW)

    assert registry.promote_once(2, "run b", lambda _: "better", NOW).version == 1
    assert registry.promote(2, "mia", "it was not", NOW).promotion.to_version == 2
    assert list(registry.promotions()) == [1, 2, 3, 4]


def test_a_champion_that_another_writer_puts_there_meanwhile_is_judged_anew(
    registry: Registry,
) -> None:
    for run in ("a", "b", "c"):
        _publish(registry, run)
    registry.promote(1, "run a", "first", NOW)
    judged: list[int | None] = []

    def judge(champion: int | None) -> str | None:
        judged.append(champion)
        if champion == 1:  # the other run records its promotion just now
            registry.promote(3, "run c", "better", NOW)
            return "better than version 1"
        return None

    assert registry.promote_once(2, "run b", judge, NOW).version == 3
    assert judged == [1, 3]
    assert [each.to_version for each in registry.promotions().values()] == [1, 3]


def test_a_champion_that_is_behind_or_missing_is_repaired(
    registry: Registry, store: FileObjectStore
) -> None:
    for run in ("a", "b"):
        registry.promote(_publish(registry, run), f"run {run}", "better", NOW)
    key = f"models/{STUDY}/champion.json"
    latest = store.get(key).data
    behind = registry._champion_of(1, registry.promotions()[1]).to_bytes()

    for damage in (partial(store.put, key, behind), partial(store.delete, key)):
        damage()
        champion = registry.champion()
        assert champion is not None
        assert champion.version == 2
        registry.repair_champion()
        assert store.get(key).data == latest


def test_a_damaged_champion_document_is_written_anew_and_said_so(
    registry: Registry, store: FileObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    registry.promote(_publish(registry, "a"), "run a", "first", NOW)
    key = f"models/{STUDY}/champion.json"
    whole = store.get(key).data
    store.put(key, whole[: len(whole) // 2])

    registry.repair_champion()

    assert store.get(key).data == whole
    assert "champion.json is written anew" in caplog.text


def test_a_champion_document_of_a_newer_version_is_left_alone(
    registry: Registry, store: FileObjectStore
) -> None:
    registry.promote(_publish(registry, "a"), "run a", "first", NOW)
    store.put(f"models/{STUDY}/champion.json", b'{"schema": 2}')

    with pytest.raises(NewerSchemaError, match="schema 2"):
        registry.repair_champion()
    assert _document(store, "champion.json") == {"schema": 2}


@pytest.mark.parametrize(
    ("promoted", "before"),
    [
        ([], None),
        ([1], None),
        ([1, 2], 1),
        ([1, 2, 3], 2),
        ([1, 2, 3, 2], 1),  # rolled back once
        ([1, 2, 3, 2, 1], None),  # twice: nothing lies before
        ([1, 2, 3, 2, 3], 2),  # rolled back and promoted again
        ([1, 2, 3, 2, 4], 2),  # a new version after a rollback
        ([1, 2, 3, 2, 4, 2], 1),
        ([1, 2, 3, 1, 5], 1),  # 2 and 3 were left behind by hand
        ([3, 1, 2], 1),  # the order is that of the promotions
    ],
)
def test_a_rollback_leads_to_the_champion_before(promoted: list[int], before: int | None) -> None:
    listed = [
        Promotion(who="mia", when="", why="", from_version=old, to_version=new)
        for old, new in zip([None, *promoted], promoted, strict=False)
    ]

    assert version_before(listed) == before


def test_rollbacks_go_further_back_until_nothing_is_left(registry: Registry) -> None:
    for run in ("a", "b", "c"):
        registry.promote(_publish(registry, run), f"run {run}", "better", NOW)

    changes = [registry.rollback("mia", "slow", NOW).promotion for _ in range(2)]

    assert [(change.from_version, change.to_version) for change in changes] == [(3, 2), (2, 1)]
    with pytest.raises(NotFoundError, match="no champion before the present one"):
        registry.rollback("mia", "slow", NOW)
    assert list(registry.promotions()) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_version_does_not_become_champion(
    registry: Registry, store: FileObjectStore, damage: str
) -> None:
    for run in ("a", "b"):
        registry.promote(_publish(registry, run), f"run {run}", "better", NOW)
    key = f"models/{STUDY}/1/model.onnx"
    if damage == "changed":
        store.put(key, flipped(store.get(key).data))
    else:
        store.delete(key)

    with pytest.raises(DamagedDataError, match=r"1/model\.onnx"):
        registry.promote(1, "mia", "", NOW)
    with pytest.raises(DamagedDataError, match=r"1/model\.onnx"):
        registry.rollback("mia", "", NOW)
    assert list(registry.promotions()) == [1, 2]


def test_a_version_that_is_gone_is_named_by_the_rollback(
    registry: Registry, store: FileObjectStore
) -> None:
    for run in ("a", "b"):
        registry.promote(_publish(registry, run), f"run {run}", "better", NOW)
    for entry in list(store.list(f"models/{STUDY}/1/")):
        store.delete(entry.key)

    with pytest.raises(NotFoundError, match="Study greens has no version 1"):
        registry.rollback("mia", "", NOW)


@pytest.mark.parametrize("name", ["model.onnx", "report.html", "samples.npz"])
def test_a_flipped_byte_is_noticed_when_a_published_file_is_read(
    registry: Registry, store: FileObjectStore, name: str
) -> None:
    version = _publish(registry, "a")
    key = f"models/{STUDY}/{version}/{name}"
    store.put(key, flipped(store.get(key).data))

    with pytest.raises(DamagedDataError, match=re.escape(f"{key} has SHA-256")):
        registry.read(version, name)


def test_more_than_nine_promotions_stay_in_order(registry: Registry) -> None:
    for run in ("a", "b"):
        _publish(registry, run)
    for number in range(12):
        registry.promote(1 + number % 2, "mia", "again", NOW)

    champion = registry.champion()
    assert champion is not None
    assert (champion.promotion, champion.version) == (12, 2)


class _Interrupted(Exception):  # noqa: N818 - stands for the death of a process
    pass


class _Interrupting:
    """A store whose k-th operation dies, before or after it took effect."""

    def __init__(self, store: ObjectStore, k: int, after: str) -> None:
        self._store, self._left, self._after = store, k, after

    @property
    def uri(self) -> str:
        return self._store.uri

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(self._store, name)

        def call(*args: Any) -> Any:
            self._left -= 1
            if self._left:
                return method(*args)
            if self._after == "after":
                with suppress(StorageError):  # nobody lives to see it
                    method(*args)
            raise _Interrupted

        return call


def _whole_job(registry: Registry) -> None:
    version = _publish(registry, "b")
    registry.promote_once(version, "run b", lambda _: "better", NOW)


def _contents(store: ObjectStore) -> dict[str, bytes]:
    return {entry.key: store.get(entry.key).data for entry in store.list("")}


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_publication_killed_anywhere_completes_on_retry(tmp_path: Path, moment: str) -> None:
    def prepared(name: str) -> FileObjectStore:
        store = FileObjectStore(tmp_path / name)
        registry = Registry(store, STUDY)
        registry.promote(_publish(registry, "a"), "run a", "first", NOW)
        return store

    undisturbed = prepared("undisturbed")
    _whole_job(Registry(undisturbed, STUDY))
    expected = _contents(undisturbed)
    for k in range(1, 200):
        store = prepared(str(k))
        try:
            _whole_job(Registry(_Interrupting(store, k, moment), STUDY))
        except _Interrupted:
            _whole_job(Registry(store, STUDY))
            assert _contents(store) == expected
        else:
            assert k > 15
            return
    pytest.fail("the job never came to its end")


class _Racing:
    """A store in which a rival acts just before the first conditional write to a key."""

    def __init__(self, store: ObjectStore, key: str, rival: Callable[[], object]) -> None:
        self._store, self._key, self._rival = store, key, [rival]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(self._store, name)

        def call(key: str, *args: Any) -> Any:
            if key == self._key and name.startswith("put_if") and self._rival:
                self._rival.pop()()
            return method(key, *args)

        return call


def test_a_lost_race_for_a_version_takes_the_next(
    registry: Registry, store: FileObjectStore
) -> None:
    key = f"models/{STUDY}/1/claim.json"
    racing = _Racing(store, key, lambda: registry.claim_version("rival"))

    assert Registry(racing, STUDY).claim_version("a") == 2  # type: ignore[arg-type] # it forwards by name


@pytest.mark.parametrize("key", ["promotions/2.json", "champion.json"])
def test_a_lost_race_for_the_champion_keeps_both_promotions(
    registry: Registry, store: FileObjectStore, key: str
) -> None:
    for run in ("a", "b", "c"):
        _publish(registry, run)
    registry.promote(1, "run a", "first", NOW)
    racing = _Racing(
        store,
        f"models/{STUDY}/{key}",
        lambda: registry.promote(2, "run b", "better", NOW),
    )

    Registry(racing, STUDY).promote(3, "run c", "best", NOW)  # type: ignore[arg-type] # it forwards by name

    assert {p.to_version for p in registry.promotions().values()} == {1, 2, 3}
    champion = registry.champion()
    assert champion is not None
    assert champion.promotion == 3
    assert _document(store, "champion.json")["version"] == champion.version


def test_samples_round_trip_without_pickles(tmp_path: Path) -> None:
    feeds, probabilities = ImageSamples().unpack(SAMPLES)

    assert len(feeds) == 4
    for feed, image in zip(feeds, _images(), strict=True):
        np.testing.assert_array_equal(feed["image"][0], image)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert _samples(_images()) == SAMPLES
    with pytest.raises(DamagedDataError, match=r"samples\.npz cannot be read"):
        ImageSamples().unpack(b"PK\x03\x04")
    path = tmp_path / "pickled.npz"
    np.savez(path, pixels=np.array([{}]), shapes=np.array([[1, 1]]), probabilities=np.ones(1))
    with pytest.raises(DamagedDataError, match=r"samples\.npz cannot be read"):
        ImageSamples().unpack(path.read_bytes())


def test_an_untouched_version_verifies(registry: Registry) -> None:
    document = verify_files(registry, _publish(registry, "a"))

    assert document["ok"]
    assert document["files"] == [
        {"path": name, "ok": True} for name in ("model.onnx", "report.html", "samples.npz")
    ]
    assert document["parity"]["rows"] == 4
    assert document["parity"]["max_abs_diff"] <= 1e-6
    require_verified(registry, 1)


@pytest.mark.parametrize("name", ["model.onnx", "report.html", "samples.npz"])
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_file_is_named(
    registry: Registry, store: FileObjectStore, name: str, damage: str
) -> None:
    version = _publish(registry, "a")
    key = f"models/{STUDY}/{version}/{name}"
    if damage == "missing":
        store.delete(key)
    else:
        store.put(key, flipped(store.get(key).data))

    document = verify_files(registry, version)

    assert not document["ok"]
    assert [file["path"] for file in document["files"] if not file["ok"]] == [name]
    with pytest.raises(VerificationError, match=name):
        require_verified(registry, version)


def test_a_file_that_predicts_something_else_fails_parity(registry: Registry) -> None:
    version = registry.claim_version("a")
    registry.write(version, {"model.onnx": _model(seed=1), "samples.npz": SAMPLES}, _facts("a"))

    document = verify_files(registry, version)

    assert not document["ok"]
    assert all(file["ok"] for file in document["files"])
    assert not document["parity"]["ok"]
    with pytest.raises(VerificationError, match="predictions differ by up to"):
        require_verified(registry, version)


def test_a_version_without_samples_verifies_by_checksums(registry: Registry) -> None:
    registry.write(registry.claim_version("a"), {"model.onnx": MODEL}, _facts("a"))

    document = verify_files(registry, 1)

    assert document["ok"]
    assert document["parity"] is None


def test_a_store_that_fails_is_not_taken_for_a_missing_version(store: FileObjectStore) -> None:
    class Failing:
        def get(self, key: str) -> None:
            raise StorageError(f"{key} cannot be read.")

    with pytest.raises(StorageError, match="cannot be read"):
        Registry(Failing(), STUDY).exists(1)  # type: ignore[arg-type] # nothing else is asked
