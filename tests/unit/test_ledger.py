"""Ledgers of what files hold."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.data.blocks import write_block
from automl.data.digest_index import digests
from automl.data.ledger import (
    Ledger,
    Page,
    Seen,
    content_of,
    place_of,
    state_of,
    write_page,
)
from automl.errors import DamagedDataError
from automl.storage.memory import MemoryObjectStore

PREFIX = "datasets/d/rows-1/"


def state(name: str, etag: str = "1") -> bytes:
    return state_of(name, 3, etag)


def page(names: str, *, size: int = 3, bad: str = "", store: MemoryObjectStore) -> Page:
    """Return a page, and store its block, of files whose content is their name."""
    contents = [content_of(name.encode()) for name in names]
    good = [name for name in names if name not in bad]
    rows = [good.index(name) if name in good else -1 for name in names]
    block = write_block(
        store, f"{PREFIX}images", len(good), {"x": np.array([ord(n) for n in good])}
    )
    return Page(
        Seen.of([(state(n), place_of(n), size, c) for n, c in zip(names, contents, strict=True)]),
        digests(contents),
        np.array(rows, np.int32),
        {"code": np.array([ord(name) for name in names])},
        {names.index(name): "bad" for name in bad},
        block,
    )


def ledger(*pages: str, store: MemoryObjectStore | None = None, bad: str = "") -> Ledger:
    store = store or MemoryObjectStore()
    for names in pages:
        found = "".join(name for name in bad if name in names)
        write_page(store, PREFIX, page(names, bad=found, store=store))
    return Ledger.read(store, PREFIX)


def test_a_page_is_what_was_stored() -> None:
    store = MemoryObjectStore()
    made = page("abc", bad="b", store=store)

    read = Page.from_bytes(write_page(store, PREFIX, made), "key")

    assert read.block == made.block
    assert read.problems == {1: "bad"}
    assert read.rows.tolist() == [0, -1, 1]
    assert read.facts["code"].tolist() == [97, 98, 99]
    np.testing.assert_array_equal(read.seen.states, made.seen.states)
    assert read.to_bytes() == made.to_bytes()


@pytest.mark.parametrize("data", [b"", b"no page", b"\x08" + bytes(7) + b'{"a":{}}'])
def test_what_is_no_page_is_named(data: bytes) -> None:
    with pytest.raises(DamagedDataError, match="the-key is no page"):
        Page.from_bytes(data, "the-key")


def test_files_in_a_known_state_are_found_with_what_they_hold() -> None:
    known = ledger("abc", "de", bad="d")

    found = known.find(digests([state("e"), state("a"), state("x"), state("a", "2"), state("d")]))

    assert (found >= 0).tolist() == [True, True, False, False, True]
    codes = known.fact("code")[found[[0, 1, 4]]]
    assert [chr(code) for code in codes] == ["e", "a", "d"]
    assert known.problems == {found[4]: "bad"}
    assert known.rows[found[4]] == -1
    blocks = [known.blocks[known.block_numbers[content]].rows for content in found[:2]]
    assert blocks == [1, 3]


def test_an_empty_ledger_knows_nothing() -> None:
    nothing = Ledger({})

    assert nothing.find(digests([state("a")])).tolist() == [-1]
    assert nothing.locate(digests([content_of(b"a")])).tolist() == [-1]
    assert nothing.candidates(place_of("a"), 3) == ()
    assert nothing.problems == {}


def test_candidates_are_what_was_there_and_what_has_the_same_size() -> None:
    known = ledger("abc")

    assert known.candidates(place_of("b"), 99) == (content_of(b"b"),)
    assert set(known.candidates(place_of("new"), 3)) == {content_of(n) for n in (b"a", b"b", b"c")}
    assert known.candidates(place_of("new"), 4) == ()


def test_too_many_files_of_one_size_are_no_candidates() -> None:
    names = "".join(chr(0x100 + number) for number in range(65))

    known = ledger(names)

    assert known.candidates(place_of("new"), 3) == ()
    assert known.candidates(place_of(names[0]), 3) == (content_of(names[0].encode()),)


def test_a_page_counts_only_while_its_block_is_there(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryObjectStore()
    whole = ledger("abc", "de", store=store)
    lost = next(block for block in whole.blocks if block.rows == 2)
    store.put(lost.key, b"x")

    with caplog.at_level(logging.WARNING):
        left = Ledger.read(store, PREFIX)

    assert (left.find(digests(map(state, "abcde"))) >= 0).tolist() == [True] * 3 + [False] * 2
    assert f"{lost.key} is gone or damaged" in caplog.text
    assert content_of(b"d") not in left.candidates(place_of("d"), 3)


def test_a_damaged_page_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryObjectStore()
    ledger("abc", "de", store=store)
    key = next(entry.key for entry in store.list(f"{PREFIX}page-"))
    store.put(key, b"x")

    with caplog.at_level(logging.WARNING):
        left = Ledger.read(store, PREFIX)

    assert f"{key} is no page" in caplog.text
    assert len(left.contents) in {2, 3}


def test_the_order_of_pages_is_that_of_their_keys() -> None:
    there, back = ledger("abc", "de", "f"), ledger("f", "de", "abc")

    np.testing.assert_array_equal(there.contents, back.contents)
    assert there.blocks == back.blocks


@given(known=st.lists(st.binary(max_size=2)), wanted=st.lists(st.binary(max_size=2)))
def test_the_first_of_equal_contents_is_found(known: list[bytes], wanted: list[bytes]) -> None:
    contents = [content_of(data) for data in known]
    rows = np.arange(len(known), dtype=np.int32)
    ledger = Ledger({"p": Page(Seen.of([]), digests(contents), rows, {})})

    found = ledger.locate(digests(map(content_of, wanted))).tolist()

    assert found == [known.index(data) if data in known else -1 for data in wanted]
