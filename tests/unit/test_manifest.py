import json
from pathlib import Path

import pytest

from automl.errors import DamagedDataError, NewerSchemaError
from automl.publishing.manifest import (
    Champion,
    Claim,
    Column,
    Manifest,
    Promotion,
    Record,
    VersionFacts,
    parse_record,
)
from tests import versions

GOLDEN = Path(__file__).parent / "golden" / "bundle-1"
KINDS: dict[str, type[Record]] = {
    "claim.json": Claim,
    "manifest.json": Manifest,
    "promotion.json": Promotion,
    "champion.json": Champion,
}


@pytest.mark.parametrize("name", KINDS)
def test_documents_of_schema_1_are_read_and_written_unchanged(name: str) -> None:
    data = (GOLDEN / name).read_bytes()

    assert parse_record(KINDS[name], data, name).to_bytes() + b"\n" == data


def test_a_file_of_values_that_reads_columns_has_neither_labels_nor_an_input_format() -> None:
    facts = versions.facts("a")
    document = facts.model_dump() | {
        "labels": (),
        "columns": [{"name": "age", "dtype": "float32"}],
        "input": {},
        "parameters": None,
    }

    data = VersionFacts.model_validate(document).to_bytes()

    stored = json.loads(data)
    assert stored["columns"] == [{"name": "age", "dtype": "float32"}]
    assert not {"labels", "input", "parameters"} & stored.keys()
    read = parse_record(VersionFacts, data, "x.json")
    assert (read.labels, read.columns) == ((), (Column(name="age", dtype="float32"),))
    assert (read.input, read.parameters) == ({}, None)


@pytest.mark.parametrize("kind", KINDS.values())
def test_documents_of_a_newer_schema_are_refused(kind: type[Record]) -> None:
    with pytest.raises(NewerSchemaError, match="schema 2; this version reads up to 1"):
        parse_record(kind, b'{"schema": 2, "news": 1}', "x.json")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"schema": 1}', b'{"schema": "x"}', b"\xff"])
def test_damaged_documents_are_refused(data: bytes) -> None:
    with pytest.raises(DamagedDataError, match=r"x\.json is no claim"):
        parse_record(Claim, data, "x.json")


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(DamagedDataError, match="extra"):
        parse_record(Claim, b'{"schema": 1, "run": "a", "extra": 2}', "x.json")
