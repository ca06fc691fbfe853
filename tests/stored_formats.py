"""Every stored format: where its golden files are, and what reads and writes it today."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from automl_airflow import dag_record
from safetensors.numpy import load, save

from automl.data.blocks import Block
from automl.data.ledger import Page
from automl.data.prepared import find_prepared, note_prepared
from automl.data.snapshot import Envelope, write_shard
from automl.domain.checked_run import CheckedRun
from automl.domain.events import Event, event_from_json, event_to_json
from automl.domain.layout import DatasetKeys, SnapshotKeys, StudyKeys
from automl.domain.settings import Settings
from automl.domain.specification import StudySpec
from automl.domain.training import CurvePoint
from automl.morphism.architecture import Architecture
from automl.publishing.manifest import Record, parse_record
from automl.runs.context import StepContext
from automl.runs.curves import curve_from_bytes, curve_to_bytes
from automl.runs.run_specification import read_specification, store_specification
from automl.runs.trial_files import predictions_to_bytes
from automl.storage.home import ObjectHome
from automl.storage.leases import _Record
from automl.storage.memory import MemoryObjectStore
from automl.storage.objects import ObjectStore
from automl.storage.sql.database import Database
from automl.storage.sql.log import SqlStudyLog
from automl.storage.sql.records import SqlRecords
from automl.storage.study_log import SEGMENT, ObjectStudyLog
from automl.tracks.feeds import FeedSamples
from automl.tracks.image.index import RowIndex
from automl.tracks.image.sample_rows import ImageSamples
from automl.tracks.track import Predictions
from automl.training.checkpoint import Checkpoint, EpochResult
from automl.training.results import weights_from_bytes, weights_to_bytes

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "unit" / "golden"
STUDY, RUN, NONCE = "greens", "night", "0" * 32
SHARDS = "snapshot-{schema}/datasets/pictures/*/selection-*"
_CONSTANT = re.compile(r"_?([A-Z]+_)*SCHEMA")
_WRITTEN_AT = re.compile(r"'[0-9T:-]+\.\d{3}Z'")
_ROW_NONCE = re.compile(r"(INSERT INTO \"automl_log\" .*?,)'[0-9a-f]{32}'")


def same_bytes(one: bytes, other: bytes) -> bool:
    """Return whether two files are equal."""
    return one == other


def same_arrays(one: bytes, other: bytes) -> bool:
    """Return whether two `.npz` files hold the same; compression is that of the machine."""
    first, second = (_arrays(data) for data in (one, other))
    return list(first) == list(second) and all(
        first[name].dtype == second[name].dtype and np.array_equal(first[name], second[name])
        for name in first
    )


@dataclass(frozen=True)
class Format:
    """One stored format.

    Attributes:
        pattern: of its golden files below `GOLDEN`, for a number of `schema`; the second file of a
            schema has `.2` before the ending, and so on.
        read: returns what the platform makes of a file.
        write: returns the file that the platform makes of that.
        kinds: classes that the file stores, those of their fields aside.
        module: whose constant tells the newest schema; None where the format has one only.
        is_same: compares a file with what is written again.
    """

    pattern: str
    read: Callable[[bytes], Any]
    write: Callable[[Any], bytes]
    kinds: tuple[type, ...] = ()
    module: str | None = None
    is_same: Callable[[bytes, bytes], bool] = same_bytes

    def files(self, schema: int, golden: Path = GOLDEN) -> list[Path]:
        """Return the golden files of a schema."""
        return sorted(golden.glob(self.pattern.format(schema=schema)))


def schemas(root: Path = ROOT) -> dict[str, int]:
    """Return the newest schema that each module writes, by the module's path."""
    return {
        str(path.relative_to(root)): number
        for folder in ("automl", "plugins")
        for path in sorted((root / folder).rglob("*.py"))
        for number in _constants(path.read_text())
    }


def _constants(source: str) -> Iterator[int]:
    for statement in ast.parse(source).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=int(number))) if (
                _CONSTANT.fullmatch(name)
            ):
                yield number


def formats() -> list[Format]:
    """Return every stored format; events, envelopes and documents of versions by their classes."""
    return [
        *map(_event_format, get_args(Event)),
        *map(_record_format, leaves(Record)),
        *map(_envelope_format, [Envelope, *descendants(Envelope)]),
        *_FORMATS,
    ]


def descendants(base: type, package: str = "automl") -> Iterator[type]:
    """Yield the classes that inherit from `base` and are defined in a package."""
    kind: type
    for kind in base.__subclasses__():
        if f"{kind.__module__}.".startswith(f"{package}."):
            yield kind
        yield from descendants(kind, package)


def leaves(base: type, package: str = "automl") -> Iterator[type]:
    """Yield those of `descendants` that no other one inherits from."""
    yield from (kind for kind in descendants(base, package) if not [*descendants(kind, package)])


def snake(name: str) -> str:
    """Return the name of a class as that of a file."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _event_format(kind: type[Event]) -> Format:
    name = kind.model_fields["type"].default
    return Format(
        f"events-{{schema}}/{name}.*",
        lambda data: event_from_json(json.loads(data), name),
        lambda event: _text(event_to_json(event)),
        (kind,),
        "automl/domain/events.py",
    )


def _record_format(kind: type[Any]) -> Format:
    return Format(
        f"bundle-{{schema}}/{snake(kind.__name__)}.*",
        lambda data: parse_record(kind, data, kind.__name__),
        lambda record: record.to_bytes() + b"\n",
        (kind,),
        "automl/publishing/manifest.py",
    )


def _envelope_format(kind: type[Any]) -> Format:
    return Format(
        f"envelopes-{{schema}}/{snake(kind.__name__)}.*",
        lambda data: kind.from_bytes(data, kind.__name__),
        lambda envelope: envelope.to_bytes(),
        (kind,),
        "automl/data/snapshot.py",
    )


def _text(document: Any) -> bytes:
    return (json.dumps(document, indent=1) + "\n").encode()


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _log_on(store: ObjectStore) -> ObjectStudyLog:
    return ObjectStudyLog(store, StudyKeys(STUDY).log.folder)


def _read_version(data: bytes) -> Any:
    store, number = MemoryObjectStore(), json.loads(data)["version"]
    store.put(StudyKeys(STUDY).log.version(number), data)
    return number, [event for _, event in _log_on(store).read(number - 1)]


def _write_version(value: Any) -> bytes:
    (number, events), store = value, MemoryObjectStore()
    _log_on(store).append(events, expected_version=number - 1)
    document = json.loads(store.get(StudyKeys(STUDY).log.version(number)).data)
    return json.dumps(document | {"nonce": NONCE}, separators=(",", ":")).encode()


def _read_segment(data: bytes) -> Any:
    store = MemoryObjectStore()
    store.put(StudyKeys(STUDY).log.segment(0), data)
    return _log_on(store).read()


def _write_segment(rows: Any) -> bytes:
    store, log = MemoryObjectStore(), None
    log = _log_on(store)
    for number in range(SEGMENT):
        events = [event for version, event in rows if version == number]
        log.append(events, expected_version=number - 1)
    document = json.loads(store.get(StudyKeys(STUDY).log.segment(0)).data)
    for version in document["versions"]:
        version["nonce"] = NONCE
    return json.dumps(document).encode()


def _read_specification(data: bytes) -> Any:
    store = MemoryObjectStore()
    store.put(StudyKeys(STUDY).run(RUN).specification, data)
    return read_specification(store, STUDY, RUN)


def _write_specification(spec: StudySpec) -> bytes:
    store = MemoryObjectStore()
    settings, home = Settings("/nowhere"), ObjectHome(store)
    store_specification(StepContext.open(settings, spec, RUN, "cli", home))
    return store.get(StudyKeys(spec.name).run(RUN).specification).data


def _read_source(data: bytes) -> Any:
    store = MemoryObjectStore()
    envelope = Envelope.from_bytes((GOLDEN / "envelopes-1/envelope.json").read_bytes(), "golden")
    store.put(envelope.keys.envelope, envelope.to_bytes())
    for shard in envelope.shards:
        store.put(shard.key, bytes(shard.size_bytes))
    store.put(DatasetKeys(envelope.dataset).source("f"), data)
    return find_prepared(store, envelope.dataset, "f", Envelope)


def _write_source(envelope: Envelope) -> bytes:
    store = MemoryObjectStore()
    note_prepared(store, envelope, "f")
    return store.get(DatasetKeys(envelope.dataset).source("f")).data


def _write_shard(tensors: Any) -> bytes:
    store = MemoryObjectStore()
    shard = write_shard(store, SnapshotKeys("pictures", "s"), "selection", 1, tensors)
    return store.get(shard.key).data


def _read_index(data: bytes) -> RowIndex:
    store = MemoryObjectStore()
    store.put("index", data)
    sha256 = hashlib.sha256(data).hexdigest()
    block = Block(key="index", rows=0, sha256=sha256, size_bytes=len(data))
    return RowIndex.read(store, block)


def _write_index(index: RowIndex) -> bytes:
    store = MemoryObjectStore()
    return store.get(index.stored(store, SnapshotKeys("pictures", "s")).key).data


def _read_predictions(data: bytes) -> Any:
    arrays = _arrays(data)
    return [
        Predictions(
            arrays[f"{part}_keys"].tolist(), arrays[f"{part}_values"], arrays[f"{part}_truth"]
        )
        for part in ("judged", "calibration")
    ]


def _read_record_of_dags(data: bytes) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.json"
        path.write_bytes(data)
        return dag_record._read(path)


def _write_record_of_dags(seen: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.json"
        dag_record._write(path, seen)
        return path.read_bytes()


def _read_tables(data: bytes) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.db"
        with closing(sqlite3.connect(path)) as file:
            file.executescript(data.decode())
        database = Database(f"sqlite:///{path}")
        rows = SqlStudyLog(database, "memory:", STUDY).read()
        return rows, SqlRecords(database, "memory:").get("lease").data


def _write_tables(value: Any) -> bytes:
    rows, lease = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.db"
        database = Database(f"sqlite:///{path}")
        for version, event in rows:
            SqlStudyLog(database, "memory:", STUDY).append([event], expected_version=version - 1)
        SqlRecords(database, "memory:").put_if_absent("lease", lease)
        with closing(sqlite3.connect(path)) as file:
            text = "".join(f"{line}\n" for line in file.iterdump())
    text = _WRITTEN_AT.sub("'2026-01-01T01:00:00.000Z'", text)
    return _ROW_NONCE.sub(rf"\1'{NONCE}'", text).encode()


_EVENTS = "automl/domain/events.py"
_FORMATS = [
    Format("log-version-{schema}.*", _read_version, _write_version, module=_EVENTS),
    Format("log-segment-{schema}.*", _read_segment, _write_segment, module=_EVENTS),
    Format(
        "lease-{schema}.*",
        lambda data: _Record.from_bytes(data, "lease"),
        lambda record: record.to_bytes(),
        (_Record,),
        "automl/storage/leases.py",
    ),
    Format("sql-{schema}.*", _read_tables, _write_tables, module="automl/storage/sql/tables.py"),
    Format(
        "run-specification-{schema}.*",
        _read_specification,
        _write_specification,
        (StudySpec,),
        "automl/runs/run_specification.py",
    ),
    Format(
        "prepared-source-{schema}.*",
        _read_source,
        _write_source,
        module="automl/data/prepared.py",
    ),
    Format(SHARDS, load, _write_shard),
    Format("block-of-images-{schema}.*", load, save),
    Format("block-of-files-{schema}.*", load, save),
    Format("row-index-{schema}.*", _read_index, _write_index),
    Format(
        "ledger-page-{schema}.*",
        lambda data: Page.from_bytes(data, "page"),
        lambda page: page.to_bytes(),
        module="automl/data/ledger.py",
    ),
    Format(
        "checkpoint-{schema}.*",
        Checkpoint.from_bytes,
        lambda checkpoint: checkpoint.to_bytes(),
        (Checkpoint, EpochResult),
        "automl/training/checkpoint.py",
    ),
    Format(
        "curve-{schema}.*",
        lambda data: curve_from_bytes(data, "curve"),
        curve_to_bytes,
        (CurvePoint,),
        "automl/runs/curves.py",
    ),
    Format(
        "weights-{schema}.*",
        lambda data: weights_from_bytes(data, "weights"),
        weights_to_bytes,
        module="automl/training/results.py",
    ),
    Format(
        "genotype-{schema}.*",
        lambda data: Architecture.from_genotype(data.decode()),
        lambda architecture: architecture.genotype().encode(),
        module="automl/morphism/genotype.py",
    ),
    Format(
        "dag-record-{schema}.*",
        _read_record_of_dags,
        _write_record_of_dags,
        (dag_record._Seen,),
        "plugins/automl_airflow/dag_record.py",
    ),
    Format(
        "checked-run-{schema}.*",
        lambda data: CheckedRun.from_json(json.loads(data)),
        lambda checked: _text(checked.to_json()),
        (CheckedRun,),
    ),
    Format(
        "validation-{schema}.*",
        _read_predictions,
        lambda parts: predictions_to_bytes(*parts),
        is_same=same_arrays,
    ),
    Format(
        "samples-of-images-{schema}.*",
        ImageSamples().unpack,
        lambda value: ImageSamples().pack(*value),
        is_same=same_arrays,
    ),
    Format(
        "samples-of-feeds-{schema}.*",
        FeedSamples().unpack,
        lambda value: FeedSamples().pack(*value),
    ),
]
