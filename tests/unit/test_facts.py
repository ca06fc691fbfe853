"""Facts that `run_opened` records are read into typed values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from automl.domain.events import RunOpened
from automl.domain.facts import Origin, OriginKind, SpaceFacts
from automl.domain.specification import LimitsSection, StudySpec
from automl.domain.study import Run, replay
from automl.errors import DamagedDataError
from tests.unit.test_specification import MINIMAL

AT = datetime(2026, 1, 1, tzinfo=UTC)


def run(spec: dict[str, Any] | None = None, **fields: Any) -> Run:
    values = {"spec": spec or {}, "origin": "cli", **fields}
    event = RunOpened(
        at=AT, run="a", deadline=AT + timedelta(hours=1), snapshot="s", spec_hash="h",
        generation_key="k", **values,
    )  # fmt: skip
    (opened,) = replay([(0, event)]).runs
    return opened


@pytest.mark.parametrize(
    ("text", "kind", "dag", "user"),
    [
        ("cli", OriginKind.CLI, "", ""),
        ("python", OriginKind.PYTHON, "", ""),
        ("airflow:automl_digits", OriginKind.AIRFLOW, "automl_digits", ""),
        ("airflow:automl_search:ann", OriginKind.AIRFLOW, "automl_search", "ann"),
        ("airflow:automl_search:a:b", OriginKind.AIRFLOW, "automl_search", "a:b"),
        ("airflow", OriginKind.AIRFLOW, "", ""),
        ("cli:x", OriginKind.OTHER, "", ""),
        ("other", OriginKind.OTHER, "", ""),
        ("", OriginKind.OTHER, "", ""),
    ],
)
def test_the_text_of_an_origin_is_read(text: str, kind: OriginKind, dag: str, user: str) -> None:
    origin = run(origin=text).origin

    assert origin == Origin(kind, dag, user)
    assert str(origin) == text or kind is OriginKind.OTHER


@pytest.mark.parametrize(
    ("text", "is_own"),
    [
        ("airflow:automl_digits", True),
        ("airflow:automl_digits2", False),
        ("airflow:automl_search:ann", False),
        ("cli", False),
    ],
)
def test_the_dag_of_a_studys_own_file_is_known_by_its_id(text: str, *, is_own: bool) -> None:
    assert Origin.of(text).is_dag_of("digits") is is_own


def test_terms_are_those_of_the_recorded_specification() -> None:
    spec: dict[str, Any] = {
        "search": {"max_trials": 7, "limits": {"parameters": 100, "device_memory": "2GB"}},
        "final_fit": {"from": 3},
    }

    opened = run(spec)

    assert (opened.max_trials, opened.continues) == (7, 3)
    assert opened.limits == LimitsSection.model_validate(spec["search"]["limits"])
    assert opened.limits.device_memory == 2 * 10**9


def test_what_a_recorded_specification_lacks_has_its_default() -> None:
    opened = run()

    assert (opened.max_trials, opened.continues) == (None, None)
    assert opened.limits == LimitsSection()


def test_terms_of_a_dumped_specification_are_read_back() -> None:
    document = {**MINIMAL, "search": {"max_trials": 2, "limits": {"latency_ms": 5}}}
    spec = StudySpec.model_validate(document)

    opened = run(spec.model_dump(mode="json", by_alias=True))

    assert (opened.max_trials, opened.limits) == (2, spec.search.limits)


def test_facts_of_the_space_are_read() -> None:
    recorded: dict[str, int | str] = {
        "image_size": 8,
        "version": 11,
        "trial_ms": 1500,
        "pretrained": "ab",
    }

    assert run(space=recorded).space == SpaceFacts(11, 1500, recorded)
    assert run(space={"image_size": 8}).space == SpaceFacts(1, None, {"image_size": 8})
    assert run().space is None


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"space": {"version": "eleven"}}, "space.version"),
        ({"spec": {"search": {"max_trials": "2"}}}, r"spec\.search\.max_trials"),
        ({"spec": {"search": {"limits": {"weight": 1}}}}, r"spec\.search\.limits"),
        ({"spec": {"final_fit": {"from": True}}}, r"spec\.final_fit\.from"),
    ],
)
def test_a_fact_that_cannot_be_is_damage(fields: dict[str, Any], place: str) -> None:
    with pytest.raises(DamagedDataError, match=place):
        run(**fields)
