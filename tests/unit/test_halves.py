"""Halves of rows for cross-fitting."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from automl.data.halves import second_half


def digest(number: int) -> str:
    return blake2b(str(number).encode(), digest_size=32).hexdigest()


@given(rows=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=60))
def test_copies_share_a_half_whatever_their_labels(rows: list[tuple[int, int]]) -> None:
    digests = [digest(number) for number, _ in rows]

    halves = second_half(digests, [label for _, label in rows])

    assert len(halves) == len(rows)
    assert len({*zip(digests, halves.tolist(), strict=True)}) == len({*digests})


@given(sizes=st.lists(st.integers(0, 9), max_size=8))
def test_both_halves_have_as_many_rows_of_each_label_but_for_one(sizes: list[int]) -> None:
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    halves = second_half([digest(number) for number in range(len(labels))], labels)

    counts = Counter(zip(labels, halves.tolist(), strict=True))
    assert all(abs(counts[label, True] - counts[label, False]) <= 1 for label in labels)


def test_single_rows_of_labels_are_spread_over_both_halves() -> None:
    halves = second_half([digest(number) for number in range(20)], range(20))

    assert halves.sum() == 10


def test_a_row_stays_in_its_half_in_whatever_order_rows_come() -> None:
    digests, labels = [digest(number) for number in range(40)], np.arange(40) % 3
    order = np.random.default_rng(0).permutation(40)

    halves = second_half(digests, [0] * 40)
    shuffled = second_half([digests[row] for row in order], [0] * 40)

    np.testing.assert_array_equal(shuffled, halves[order])
    assert second_half(digests, labels.tolist()).tolist() != halves.tolist()
