"""Golden files: every stored class has one, and none is ever altered."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from pydantic import BaseModel

from automl.data.snapshot import Envelope
from automl.domain import layout
from automl.domain.events import Event, _Event
from automl.publishing.manifest import Record
from tests.golden_files import SUMS, breaches, golden_files, hashes, lines_ever, recorded, withdrawn
from tests.stored_formats import GOLDEN, Format, descendants, formats, leaves, schemas

FORMATS = formats()
SCHEMAS = schemas()
# the golden file of each key of a home
STORED = {
    "SnapshotKeys.envelope": "envelopes-2/image_envelope.json",
    "SnapshotKeys.preprocess": "snapshot-1/datasets/pictures/*/preprocess.onnx",
    "SnapshotKeys.shard": "snapshot-1/datasets/pictures/*/train-*.safetensors",
    "DatasetKeys.source": "prepared-source-1.json",
    "LogKeys.version": "log-version-1.json",
    "LogKeys.segment": "log-segment-1.json",
    "AttemptKeys.curve": "curve-3.jsonl",
    "AttemptKeys.weights": "weights-1.safetensors",
    "AttemptKeys.validation": "validation-1.npz",
    "AttemptKeys.checkpoint": "checkpoint-3.safetensors",
    "RunKeys.specification": "run-specification-1.json",
    "RunKeys.member": "weights-1.safetensors",
    "RunKeys.export": "bundle-1/export_record.json",
    "RunKeys.final_fit": "checkpoint-3.safetensors",
    "RunKeys.cross_fit": "validation-1.npz",
    "StudyKeys.file": "weights-1.safetensors",  # of a pretrained seed
    "ModelKeys.champion": "bundle-1/champion.json",
    "ModelKeys.promotion": "bundle-1/promotion.json",
    "lease_key": "lease-1.json",
    "CLAIM_FILE": "bundle-1/claim.json",
    "MANIFEST_FILE": "bundle-1/manifest.json",
    "SAMPLES_FILE": "samples-of-images-1.npz",
}
ELSEWHERE = {
    "MODEL_FILE",  # in the homes of an earlier release
    "REPORT_FILE", "SnapshotKeys.report", "RunKeys.problems",  # for people: nothing reads them
    "PROBES", "probe_key",  # content that nothing reads
    # parts of keys, keys of others, and what keys tell
    "STUDIES", "SnapshotKeys.file", "DatasetKeys.folder", "DatasetKeys.snapshot", "LogKeys.hundred",
    "LogKeys.segments", "AttemptKeys.of", "AttemptKeys.checkpoints", "StudyKeys.folder",
    "StudyKeys.leases", "StudyKeys.log", "StudyKeys.run", "StudyKeys.trial", "ModelKeys.file",
    "ModelKeys.from_champion", "ModelKeys.prefix", "ModelKeys.promotions", "ModelKeys.version",
    "DatasetKeys.files", "DatasetKeys.snapshot_of", "DatasetKeys.rows", "checkpoint_epoch",
    "shard_digest", "study_of_log",
}  # fmt: skip
# files that today's code reads and writes otherwise, those of older schemas aside
OLDER = {
    "lease-1.json", "run_opened.json", "log-segment-1.json", "sql-1.sql", "envelope.json",
    "image_envelope.json", "envelope.2.json", "image_envelope.2.json", "image_envelope.3.json",
    "image_envelope.missing.json", "envelope.sealed.json", "image_envelope.sealed.json",
}  # fmt: skip


def newest(form: Format) -> int:
    return 1 if form.module is None else SCHEMAS[form.module]


def without_golden_file(wanted: list[Format], golden: Path = GOLDEN) -> list[str]:
    """Return the patterns of the golden files that are missing."""
    return [
        form.pattern.format(schema=schema)
        for form in wanted
        for schema in range(1, newest(form) + 1)
        if not form.files(schema, golden)
    ]


def public_names(module: Any) -> Iterator[str]:
    """Yield the names of what a module gives: constants, functions and members of its classes."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", module.__name__) != module.__name__:
            continue
        if inspect.isclass(value):
            members = (each for each in vars(value) if not each.startswith("_"))
            fields = {field.name for field in fields_in(value)}
            yield from (f"{name}.{member}" for member in members if member not in fields)
        elif inspect.isfunction(value) or isinstance(value, str):
            yield name


def nested(kind: type) -> Iterator[type]:
    """Yield a stored class and those that its fields hold."""
    yield kind
    for hint in get_type_hints(kind).values():
        yield from _within(hint)


def _within(hint: Any) -> Iterator[type]:
    for argument in get_args(hint):
        yield from _within(argument)
    if inspect.isclass(hint) and get_origin(hint) is None and issubclass(hint, BaseModel):
        yield from nested(hint)


def told(value: Any) -> Iterator[tuple[type, str]]:
    """Yield class and field of all that is in a value and does not equal its default."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from told(one)
    elif isinstance(value, BaseModel) or dataclasses.is_dataclass(value):
        for name, default in defaults(type(value)).items():
            found = getattr(value, name)
            if default is None or found != default():
                yield type(value), name
            yield from told(found)


def defaults(kind: type) -> dict[str, Callable[[], Any] | None]:
    """Return what makes the default of each field of a class; None where it has none."""
    if issubclass(kind, BaseModel):
        return {
            name: None
            if each.is_required()
            else partial(each.get_default, call_default_factory=True)
            for name, each in kind.model_fields.items()
        }
    found: dict[str, Callable[[], Any] | None] = {}
    for field in fields_in(kind):
        factory = None if field.default_factory is dataclasses.MISSING else field.default_factory
        has_value = field.default is not dataclasses.MISSING
        found[field.name] = partial(copy, field.default) if has_value else factory
    return found


def fields_of(kind: type) -> set[str]:
    """Return the stored fields of a class that can have several values."""
    if issubclass(kind, BaseModel):
        return {
            name
            for name, field in kind.model_fields.items()
            if get_origin(field.annotation) is not Literal
            and name != "schema_version"
            and not field.exclude
        }
    return {field.name for field in fields_in(kind)}


def fields_in(kind: type) -> tuple[dataclasses.Field[Any], ...]:
    """Return the fields of a dataclass."""
    assert dataclasses.is_dataclass(kind)
    return dataclasses.fields(kind)


def untold(form: Format) -> set[tuple[str, str]]:
    """Return the fields of a format's classes for which no golden file has a value of its own."""
    files = [path for k in range(1, newest(form) + 1) for path in form.files(k)]
    found = {pair for path in files for pair in told(form.read(path.read_bytes()))}
    classes = {inner for kind in form.kinds for inner in nested(kind)}
    return {
        (kind.__name__, name)
        for kind in classes
        for name in fields_of(kind)
        if (kind, name) not in found
    }


def test_every_stored_class_has_a_golden_file_of_each_schema() -> None:
    assert without_golden_file(FORMATS) == []


def test_the_log_knows_every_class_of_events() -> None:
    assert set(get_args(Event)) == set(descendants(_Event))


def test_each_schema_is_one_of_a_format() -> None:
    assert {form.module for form in FORMATS if form.module} == set(SCHEMAS)


def test_each_key_of_a_home_has_a_golden_file_or_stores_no_document() -> None:
    assert set(public_names(layout)) == set(STORED) | ELSEWHERE
    assert [name for name in STORED.values() if not list(GOLDEN.glob(name))] == []


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.pattern)
def test_every_field_of_a_stored_class_has_a_value_in_a_golden_file(form: Format) -> None:
    assert untold(form) == set()


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.pattern)
def test_golden_files_are_read_and_written_again(form: Format) -> None:
    last = newest(form)

    for schema, path in [(k, path) for k in range(1, last + 1) for path in form.files(k)]:
        data = path.read_bytes()
        again = form.write(form.read(data))
        assert form.is_same(form.write(form.read(again)), again), path
        is_todays = schema == last and path.name not in OLDER
        assert form.is_same(again, data) or not is_todays, path


def test_a_class_without_a_golden_file_is_found() -> None:
    class TrialCelebrated(_Event):
        type: Literal["trial_celebrated"] = "trial_celebrated"

    class Withdrawal(Record):
        why: str

    class TableEnvelope(Envelope):
        columns: tuple[str, ...]

    assert list(descendants(_Event, __name__)) == [TrialCelebrated]
    assert list(leaves(Record, __name__)) == [Withdrawal]
    assert list(descendants(Envelope, __name__)) == [TableEnvelope]
    added = [
        Format(f"bundle-{{schema}}/{name}.*", bytes, bytes, (), "automl/publishing/manifest.py")
        for name in ("claim", "withdrawal")
    ]
    assert without_golden_file(added) == ["bundle-1/withdrawal.*"]


def test_a_schema_without_a_golden_file_is_found(tmp_path: Path) -> None:
    module = tmp_path / "automl" / "bets.py"
    module.parent.mkdir()
    module.write_text("BETS_SCHEMA = 2  # the newest\nSCHEMAS = 3\n")
    (tmp_path / "claim-1.json").touch()

    assert schemas(tmp_path) == {"automl/bets.py": 2}
    two = SCHEMAS["automl/morphism/genotype.py"]
    missing = Format("claim-{schema}.*", bytes, bytes, (), "automl/morphism/genotype.py")
    assert without_golden_file([missing], tmp_path) == [f"claim-{k}.*" for k in range(2, two + 1)]


def test_a_field_without_a_value_in_a_golden_file_is_found() -> None:
    class Claim(Record):
        run: str
        why: str = ""

    form = Format(
        "bundle-{schema}/claim.*",
        Claim.model_validate_json,
        lambda claim: bytes(claim.to_bytes()),
        (Claim,),
        "automl/publishing/manifest.py",
    )

    assert untold(form) == {("Claim", "why")}


def test_golden_files_are_written_once() -> None:
    assert breaches(recorded(SUMS.read_text()), hashes(golden_files())) == []


def test_no_hash_is_ever_replaced() -> None:
    assert withdrawn(lines_ever(), SUMS.read_text()) == []


def test_an_altered_a_removed_and_an_unknown_file_are_found() -> None:
    known = recorded("aa  golden/one\nbb  golden/two\n")

    assert breaches(known, known) == []
    assert breaches(known, {"golden/one": "ab", "golden/new": "cc"}) == [
        "golden/one was altered; restore it, and add another file",
        "golden/two was removed; restore it",
        "golden/new has no hash; run `python -m tests.golden_files`",
    ]
    assert withdrawn(["aa  golden/one", "bb  golden/two"], "ab  golden/one\nbb  golden/two\n") == [
        "aa  golden/one"
    ]
