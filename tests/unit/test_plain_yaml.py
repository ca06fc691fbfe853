"""Reading of YAML that strangers wrote: plain values, or a list of what is wrong."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.domain.plain_yaml import MOST_DEPTH, MOST_PARTS, read_yaml

BOMB = "a: &a [x,x,x,x,x,x,x,x]\n" + "".join(
    f"{one}: &{one} [{','.join([f'*{before}'] * 8)}]\n"
    for before, one in zip("abcdefgh", "bcdefghi", strict=True)
)


def told(text: str) -> dict[str, str]:
    return {problem.path: problem.message for problem in read_yaml(text).problems}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: 1\nb: [x, 2.5, true, null, ~]\n", {"a": 1, "b": ["x", 2.5, True, None, None]}),
        ("\ufeffname: x\n", {"name": "x"}),
        ("a: '1'\nb: \"2\"\nc: !!str 3\n", {"a": "1", "b": "2", "c": "3"}),
        ("a: 0x1F\nb: 1_000\nc: 0b11\nd: 012\n", {"a": 31, "b": 1000, "c": 3, "d": 10}),
        ("a: &x {b: 1}\nc: *x\n", {"a": {"b": 1}, "c": {"b": 1}}),
        ("a: |\n  two\n  lines\n", {"a": "two\nlines\n"}),
        ("a: {{ conn.x }}\n", {"a": {}}),
    ],
)
def test_plain_values_are_read(text: str, value: object) -> None:
    assert read_yaml(text).document == value


def test_infinity_is_a_number_for_others_to_refuse() -> None:
    document = read_yaml("a: .inf\nb: .nan\n").document

    assert isinstance(document, dict)
    assert document["a"] == math.inf
    assert math.isnan(document["b"])


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("name: 2024-13-45\n", "name", "'2024-13-45' is a date in YAML; put it into quotes"),
        ("search: {seed: 0x_}\n", "search.seed", "'0x_' cannot be read as int"),
        (
            "a: !!python/object/apply:os.system [id]\n",
            "a",
            "python/object/apply:os.system' means n",
        ),
        ("a: !!binary aGk=\n", "a", "binary' means nothing here"),
        ("a: !!int x\n", "a", "'x' cannot be read as int"),
        ("a: !!set {x}\n", "a", "set' means nothing here"),
        ("a: 1\nb: 2\na: 3\n", "a", "the key 'a' is written twice"),
        ("a: {1: x}\n", "a", "the key 1 is no text; put it into quotes"),
        ("? [x]\n: 1\n", "", "the key a collection is no text"),
        ("a: {<<: {b: 1}}\n", "a", "merge keys (`<<`) are not read"),
        ("a: &x [*x]\n", "a.0", "the alias *x stands for what holds it"),
        ("a: *x\n", "a", "the alias *x stands for nothing"),
        ("a: 1\n---\nb: 2\n", "", "it holds several documents"),
        ("a: [\n", "", "it is not valid YAML: "),
        ("a: \x00\n", "", "it is not valid YAML: "),
        ('a: "\\ud800"\n', "", "it is not valid YAML: "),
        ("[" * 3000, "", f"it is nested deeper than {MOST_DEPTH} levels"),
        ("[" * 3000 + "]" * 3000, "", f"it is nested deeper than {MOST_DEPTH} levels"),
        (BOMB, "", f"it has more than {MOST_PARTS} keys and values"),
        ("a:\n" + "- x\n" * 6000, "", f"it has more than {MOST_PARTS} keys and values"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, path: str, words: str) -> None:
    assert words in told(text)[path]


def test_all_problems_are_told_and_the_rest_is_read() -> None:
    text = "name: 2024-01-01\nsearch: {seed: 0x_, workers: 3}\ndata: {source: x, source: y}\n"

    assert told(text).keys() == {"name", "search.seed", "data.source"}
    assert read_yaml(text).document == {"search": {"workers": 3}, "data": {"source": "x"}}


def test_a_number_of_five_thousand_digits_is_a_text() -> None:
    assert read_yaml("seed: " + "9" * 5000).document == {"seed": "9" * 5000}


def test_keys_are_shown_in_a_line_and_cut() -> None:
    (path,) = told('"a\\n\\e[31m": 0x_\n')
    (long,) = told(f"{'k' * 500}: 0x_\n")

    assert path == repr("a\n\x1b[31m")
    assert len(long) < 130


@pytest.mark.parametrize(
    "text", ["[" * 10**6, "a" * 10**6, "#" * 10**6, BOMB * 3000, "? " * 10**5, "- " * 10**5,
             "{" * 10**5, "&a " * 10**5, "'" + "''" * 10**5, "a: 1\n" * 10**5, "!" * 10**5,
             "9" * 10**6, "1:" * 10**5, "%" * 10**5, "\n" * 10**6, "\t" * 10**5, "-" * 10**6],
    ids=lambda text: repr(text[:4]),
)  # fmt: skip
def test_a_text_of_a_megabyte_is_read_quickly(text: str) -> None:
    started_s = time.process_time()
    read_yaml(text)
    assert time.process_time() - started_s < 1


@given(st.text() | st.text(alphabet="{}[]:,&*!?-<>|'\"% \n\tab01._~#=@`"))
def test_any_text_is_read(text: str) -> None:
    read_yaml(text)
