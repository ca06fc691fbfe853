"""Any document at all is a specification, or a `ConfigError` that can be shown."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl.domain.plain import shown
from automl.domain.specification import StudySpec
from automl.errors import ConfigError
from automl.steps.study_file import study_spec
from tests.unit.test_specification import known_keys, with_values

ODD: list[Any] = [
    "", "x" * 5000, "\x00", "\ud800", "a\nb", "9" * 5000, "9" * 5000 + "h", "9" * 30 + "GB",
    "{{ x }}",
    "~nobody/x", "../../etc", "@daily", "0 0 30 2 *", "* * * * *", "0 0 * *", "99999 * * * *",
    "*/" + "9" * 5000 + " * * * *", "0 1 * * mon-", "Europe/Berlin", "/etc/passwd", "Europe", ".",
    10**4000, -(10**4000), 2**63, 2**63 - 1, 1e308, float("inf"), float("nan"), -0.0, True, None,
    b"bytes", date(2026, 1, 1), timedelta(days=400), timedelta.max, {1, 2}, frozenset({"a"}),
    object(), [], {}, [[[]]], {"": {}}, {1: 2}, {None: 1}, ("a",), "2h", "auto", 1, 0,
]  # fmt: skip
SECTIONS = ["data", "search", "search.limits", "final_fit", "export", "predict", "retention"]
VALUES = st.sampled_from(ODD) | st.text() | st.integers() | st.floats()
NESTED = st.recursive(
    VALUES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=8,
)


def refused_or_whole(document: object) -> None:
    """Assert that a document is a specification that can be stored, or is refused with words."""
    try:
        spec = study_spec(document)
    except ConfigError as error:
        str(error).encode(errors="backslashreplace")
        if any(len(str(problem)) > 1500 for problem in error.problems):
            raise AssertionError("a message is long") from error
        return
    assert isinstance(spec, StudySpec)
    assert study_spec(json.loads(spec.canonical())) == spec
    assert datetime.now(UTC) + spec.search.time_limit < datetime(2100, 1, 1, tzinfo=UTC)


@settings(max_examples=400)
@given(
    st.dictionaries(
        st.sampled_from([*sorted(known_keys()), *SECTIONS, "name", "zzz", "data.zzz"]),
        NESTED,
        max_size=5,
    )
)
def test_any_values_are_refused_or_can_be_stored(values: dict[str, Any]) -> None:
    try:
        document = with_values(values)
    except (AttributeError, TypeError):  # a section that is none already
        return
    refused_or_whole(document)


@given(NESTED)
def test_any_document_is_refused_with_words(document: object) -> None:
    refused_or_whole(document)


@pytest.mark.parametrize("path", [*known_keys(), *SECTIONS])
def test_every_odd_value_of_every_key_is_refused_with_words(path: str) -> None:
    for value in ODD:
        refused_or_whole(with_values({path: value}))


def test_a_deep_a_recursive_and_a_wide_document_are_refused() -> None:
    deep: list[Any] = []
    for _ in range(3000):
        deep = [deep]
    recursive: dict[str, Any] = {"name": "x"}
    recursive["data"] = recursive
    wide = {f"key{number}": number for number in range(30_000)}

    for document in (with_values({"data.columns": deep}), recursive, wide):
        with pytest.raises(ConfigError, match="which no study needs"):
            study_spec(document)


def test_of_very_many_problems_the_first_hundred_are_told() -> None:
    with pytest.raises(ConfigError, match="has 5000 problems") as caught:
        study_spec(with_values({f"key{number}": number for number in range(5000)}))

    assert len(caught.value.problems) == 101
    assert str(caught.value.problems[-1]) == "4900 more problems are not listed"


def test_keys_that_are_no_text_are_told() -> None:
    with pytest.raises(ConfigError) as caught:
        study_spec(with_values({"data": {"source": "x", 3: 4}}))

    assert [str(each) for each in caught.value.problems] == ["data: the key 3 is no text; quote it"]


@pytest.mark.parametrize("text", ["a\x00b", "a\nb", "\x1b[31m", "\x7f"])
def test_control_characters_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="holds a control character"):
        study_spec(with_values({"data.source": text}))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        ("a'b", '"a\'b"'),
        ("x" * 200, f"'{'x' * 120}'…"),
        (10**5000, "an integer of 16610 bits"),
        (["a", 10**5000], "['a', an integer of 16610 bits]"),
    ],
    ids=["number", "text", "long", "huge", "list"],
)
def test_values_are_shown_as_python_writes_them_and_cut(value: object, text: str) -> None:
    assert shown(value) == text
