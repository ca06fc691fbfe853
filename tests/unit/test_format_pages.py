"""The examples in the pages of the formats are what the platform reads and writes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

from automl.domain.events import Event, event_from_json, event_to_json
from automl.morphism.architecture import Architecture
from automl.morphism.moves import Move, MoveKind

PAGES = Path(__file__).parents[2] / "docs" / "formats"


def examples(page: str) -> list[Any]:
    text = (PAGES / page).read_text()
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]


def test_the_study_log_has_an_example_of_each_event() -> None:
    (events,) = (example for example in examples("study-log.md") if isinstance(example, list))

    assert [event_to_json(event_from_json(event, "the page")) for event in events] == events
    known = {kind.model_fields["type"].default for kind in get_args(Event)}
    assert {event["type"] for event in events} == known


def test_the_table_of_events_lists_their_keys() -> None:
    text = (PAGES / "study-log.md").read_text()

    for kind in get_args(Event):
        keys = [name for name in kind.model_fields if name not in {"at", "type"}]
        name = kind.model_fields["type"].default
        (row,) = re.findall(rf"^\| `{name}` \| (.*?) \|", text, re.MULTILINE)
        assert row.split(", ") == keys, name


def test_the_page_of_the_genotype_shows_one_and_lists_every_move() -> None:
    document, move = examples("genotype.md")
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    listed = re.findall(r"^\| `(\w+)` \|.*\|.*\|$", (PAGES / "genotype.md").read_text(), re.M)

    assert Architecture.from_genotype(text).genotype() == text
    assert Move.from_json(move).to_json() == move
    assert {str(kind) for kind in MoveKind} <= set(listed)
