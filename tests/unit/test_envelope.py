from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from automl.data.blocks import read_checked
from automl.data.prepared import find_prepared, find_snapshot, note_prepared
from automl.data.snapshot import (
    Envelope,
    QuarantinedRow,
    read_shards,
    write_envelope,
    write_shard,
)
from automl.domain.layout import SnapshotKeys
from automl.errors import DamagedDataError, NewerSchemaError, NotFoundError
from automl.storage.file import FileObjectStore

KEYS = SnapshotKeys("numbers", "s1")
ROWS = {"even": [0.0, 2.0, 4.0], "odd": [1.0, 3.0]}


class NumberEnvelope(Envelope):
    """Snapshots of a track that learns from numbers."""

    largest: float


@pytest.fixture
def store(tmp_path: Path) -> FileObjectStore:
    return FileObjectStore(tmp_path)


def written(store: FileObjectStore, **further: object) -> Envelope:
    shards = tuple(
        write_shard(store, KEYS, part, len(rows), {"x": np.array(rows)})
        for part, rows in ROWS.items()
    )
    document = {
        "id": KEYS.snapshot,
        "dataset": KEYS.dataset,
        "counts": {part: len(rows) for part, rows in ROWS.items()},
        "quarantined": (QuarantinedRow(path="line 3", reason="it is no number"),),
        "thresholds": {"": (0.25, 0.5)},
        "shards": shards,
        "source": "numbers.csv",
        **further,
    }
    return write_envelope(store, Envelope.model_validate(document))


def test_rows_of_any_track_are_read_as_they_were_written(store: FileObjectStore) -> None:
    stored = written(store)

    envelope = Envelope.read(store, "numbers", "s1")
    found = {
        shard.part: tensors["x"].tolist()
        for shard, tensors in read_shards(store, envelope, "odd", "even")
    }

    assert envelope == stored
    assert envelope.counts == {"even": 3, "odd": 2}
    assert list(found) == ["odd", "even"]  # in the order that was asked for
    assert found == ROWS


def test_parts_that_are_not_there_have_no_rows(store: FileObjectStore) -> None:
    assert list(read_shards(store, written(store), "prime")) == []


def test_keys_that_only_the_track_knows_survive(store: FileObjectStore) -> None:
    written(store, largest=4.0, columns=[{"name": "x", "dtype": "float32"}])

    envelope = Envelope.read(store, "numbers", "s1")

    assert envelope.model_extra == {
        "largest": 4.0,
        "columns": [{"name": "x", "dtype": "float32"}],
    }
    assert Envelope.from_bytes(envelope.to_bytes(), "copy") == envelope
    of_the_track = NumberEnvelope.read(store, "numbers", "s1")
    assert of_the_track.largest == 4.0
    assert of_the_track.model_extra == {"columns": [{"name": "x", "dtype": "float32"}]}


def test_an_envelope_of_another_track_is_refused(store: FileObjectStore) -> None:
    written(store)

    with pytest.raises(DamagedDataError, match=r"s1/manifest\.json describes no snapshot.*largest"):
        NumberEnvelope.read(store, "numbers", "s1")


def test_a_newer_envelope_is_refused_with_the_remedy(store: FileObjectStore) -> None:
    document = json.loads(written(store).to_bytes()) | {"schema": 3}

    with pytest.raises(NewerSchemaError, match=r"has schema 3.*upgrade"):
        Envelope.from_bytes(json.dumps(document).encode(), "datasets/numbers/s1/manifest.json")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"schema": "1"}', b'{"schema": 1}'])
def test_what_is_no_envelope_is_refused(content: bytes) -> None:
    with pytest.raises(DamagedDataError, match="here describes no snapshot"):
        Envelope.from_bytes(content, "here")


def test_the_first_envelope_of_a_snapshot_stays(store: FileObjectStore) -> None:
    first = written(store)

    second = written(store, source="elsewhere.csv")

    assert not first.reused
    assert second.reused
    assert (second.source, Envelope.read(store, "numbers", "s1")) == ("numbers.csv", first)


def test_a_changed_shard_is_noticed(store: FileObjectStore) -> None:
    envelope = written(store)
    store.put(envelope.shards[0].key, b"something else")

    with pytest.raises(DamagedDataError, match=r"even-\w+\.safetensors has SHA-256 .* Hint: "):
        list(read_shards(store, envelope, "even"))
    assert len(list(read_shards(store, envelope, "odd"))) == 1


def test_a_changed_file_of_a_snapshot_is_noticed(store: FileObjectStore) -> None:
    store.put(KEYS.file("columns.json"), b"[]")

    with pytest.raises(DamagedDataError, match=r"s1/columns\.json has SHA-256"):
        read_checked(store, KEYS.file("columns.json"), "0" * 64)


def test_equal_rows_have_an_equal_key(store: FileObjectStore) -> None:
    first, second, third = (
        write_shard(store, KEYS, "even", 1, {"x": np.array([value])}) for value in (2.0, 2.0, 4.0)
    )

    assert first == second
    assert first.key != third.key


def test_a_source_is_found_again_by_its_fingerprint(store: FileObjectStore) -> None:
    note_prepared(store, written(store, largest=4.0), "f1")

    known = find_prepared(store, "numbers", "f1", NumberEnvelope)

    assert known is not None
    assert (known.id, known.largest, known.reused) == ("s1", 4.0, True)
    assert find_prepared(store, "numbers", "f2", NumberEnvelope) is None


def test_a_source_whose_snapshot_was_deleted_is_prepared_again(store: FileObjectStore) -> None:
    note_prepared(store, written(store), "f1")
    store.delete(KEYS.envelope)

    assert find_prepared(store, "numbers", "f1", Envelope) is None
    assert find_snapshot(store, "numbers", "s1", Envelope) is None
    with pytest.raises(NotFoundError):
        Envelope.read(store, "numbers", "s1")


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}"])
def test_a_source_with_a_damaged_note_is_prepared_again(
    store: FileObjectStore, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store.put("datasets/numbers/sources/f1.json", content)

    assert find_prepared(store, "numbers", "f1", Envelope) is None
    assert "sources/f1.json names no snapshot" in caplog.text
