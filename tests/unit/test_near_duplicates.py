from __future__ import annotations

import csv
from dataclasses import dataclass
from itertools import combinations

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from automl.data import near_duplicates
from automl.data.near_duplicates import (
    NearDuplicates,
    Straddler,
    candidate_pairs,
    clusters_of,
    exact_duplicates,
    find_near_duplicates,
    straddlers,
)
from automl.tracks.image.decode import decode_image
from automl.tracks.image.hashing import difference_hash, thumbnails
from benchmarks.shared_data import shared_dataset

hashes = st.integers(0, 2**64 - 1)
flips = st.lists(st.integers(0, 63), max_size=9)


def words(numbers: list[int]) -> NDArray[np.uint64]:
    return np.array(numbers, np.uint64)


def flipped(number: int, bits: list[int]) -> int:
    for bit in bits:
        number ^= 1 << bit
    return number


def pairs_of(found: NDArray[np.int64]) -> list[tuple[int, int]]:
    return [(one, other) for one, other in found.tolist()]


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), flips), max_size=near_duplicates.GROUP_ROWS),
    seeds=st.lists(hashes, min_size=4, max_size=4),
    most=st.integers(0, 6),
)
def test_all_pairs_that_differ_in_few_bits_are_found_once_and_no_others(
    rows: list[tuple[int, list[int]]], seeds: list[int], most: int
) -> None:
    numbers = [flipped(seeds[seed], bits) for seed, bits in rows]

    found = candidate_pairs(words(numbers), most)

    assert pairs_of(found.pairs) == [
        (one, other)
        for one, other in combinations(range(len(numbers)), 2)
        if (numbers[one] ^ numbers[other]).bit_count() <= most
    ]
    assert found.capped == 0


def test_any_six_bits_may_differ() -> None:
    rng = np.random.default_rng(0)
    numbers = [0] + [flipped(0, rng.permutation(64)[:6].tolist()) for _ in range(300)]

    found = candidate_pairs(words(numbers))

    assert sum(one == 0 for one, _ in pairs_of(found.pairs)) == 300


def test_rows_of_one_hash_are_compared_with_those_that_follow_and_counted() -> None:
    found = candidate_pairs(words([7] * 40), bucket_rows=3)

    assert found.capped == 40
    assert len(found.pairs) == 40 * 3 - 6
    assert clusters_of(found.pairs) == (tuple(range(40)),)


def test_hashes_of_a_full_bucket_are_compared_with_those_that_follow_and_counted() -> None:
    numbers = [0xAAAA << 48 | each for each in range(50)]

    found = candidate_pairs(words(numbers), bucket_rows=4)

    assert found.capped == 50
    assert {(each, each + 1) for each in range(49)} <= set(pairs_of(found.pairs))


def test_many_pairs_are_cut_off_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "MOST_PAIRS", 10)

    found = candidate_pairs(words(list(range(30))))

    assert len(found.pairs) == 10
    assert found.capped == 30


def test_thousands_of_blank_images_among_many_rows_are_no_trouble() -> None:
    rng = np.random.default_rng(1)
    numbers = rng.integers(0, 2**64, 20_000, dtype=np.uint64)
    numbers[:3000] = 0
    numbers[-1] = numbers[-2] ^ np.uint64(0b111)

    found = candidate_pairs(numbers)

    assert found.capped == 3000
    assert (19_998, 19_999) in pairs_of(found.pairs[-5:])


def test_no_rows_have_no_duplicates() -> None:
    found = find_near_duplicates(words([]), np.zeros((0, 4), np.uint8))

    assert found.pairs.shape == (0, 2)
    assert found.clusters == ()


def test_a_candidate_is_confirmed_by_its_thumbnail() -> None:
    pictures = np.array([[100, 100], [100, 120], [100, 114]], np.uint8)

    found = find_near_duplicates(words([5, 5, 5]), pictures)

    assert pairs_of(found.pairs) == [(0, 2), (1, 2)]
    np.testing.assert_allclose(found.distances, [14 / 2**0.5, 6 / 2**0.5])
    assert found.clusters == ((0, 1, 2),)


def test_pairs_across_classes_are_told() -> None:
    found = NearDuplicates(np.array([[0, 1], [1, 2]]), np.zeros(2), ((0, 1, 2),), 0)

    assert found.across(np.array(["cat", "cat", "dog"])).tolist() == [1]


def test_equal_digests_are_exact_duplicates() -> None:
    assert exact_duplicates(["a", "b", "a", "c", "b", "a"]) == [(0, 2, 5), (1, 4)]


def test_training_rows_go_where_a_cluster_straddles_and_held_out_rows_stay() -> None:
    pictures = np.array([[0], [6], [12], [90], [93], [200], [201]], np.uint8)
    is_training = np.array([False, True, True, True, True, False, False])
    found = find_near_duplicates(words([0] * 7), pictures)

    left_out = straddlers(found, is_training, pictures)

    assert found.clusters == ((0, 1, 2), (3, 4), (5, 6))
    assert left_out == [Straddler(1, 0, 6.0), Straddler(2, 0, 12.0)]


@given(pairs=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=30))
def test_clusters_part_rows_as_the_pairs_do(pairs: list[tuple[int, int]]) -> None:
    ordered = [(one, other) for one, other in pairs if one < other]
    graph = networkx.Graph(ordered)

    found = clusters_of(np.array(ordered, np.int64).reshape(-1, 2))

    expected = sorted(tuple(sorted(rows)) for rows in networkx.connected_components(graph))
    assert list(found) == expected


@dataclass(frozen=True)
class Pictures:
    """Pictures of a dataset, by row."""

    names: list[str]
    labels: NDArray[np.str_]
    parts: NDArray[np.str_]
    hashes: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]


def read(name: str, *labels: str) -> Pictures:
    """Return the pictures with these labels, or all."""
    folder = shared_dataset(name)
    rows = []
    for part in ("train", "test"):
        with (folder / f"{part}.csv").open(newline="") as file:
            rows += [(row["File Name"], row["Label"], part) for row in csv.DictReader(file)]
    rows = [row for row in rows if not labels or row[1] in labels]
    names, of, parts = zip(*rows, strict=True)
    images = [decode_image((folder / "images" / each).read_bytes()) for each in names]
    return Pictures(
        list(names),
        np.array(of),
        np.array(parts),
        words([difference_hash(image) for image in images]),
        np.concatenate([thumbnails(image[None]) for image in images]),
    )


@pytest.mark.needs_shared("plant_seedlings")
def test_seedlings_that_were_photographed_twice_are_found() -> None:
    pictures = read("plant_seedlings")

    found = find_near_duplicates(pictures.hashes, pictures.thumbnails)

    assert len(found.pairs) == 44  # of the 45 of all pairs whose thumbnails are as near
    assert found.capped == 0
    assert (found.distances > 0).sum() == 40
    assert found.across(pictures.labels).size == 0
    assert found.across(pictures.parts).size == 9
    left_out = straddlers(found, pictures.parts == "train", pictures.thumbnails)
    assert {str(pictures.parts[each.row]) for each in left_out} == {"train"}
    assert {str(pictures.parts[each.near]) for each in left_out} == {"test"}


@pytest.mark.needs_shared("clothing")
def test_a_picture_under_two_labels_is_found() -> None:
    pictures = read("clothing", "shorts", "skirt")

    found = find_near_duplicates(pictures.hashes, pictures.thumbnails)

    assert [[pictures.names[row] for row in pair] for pair in found.pairs.tolist()] == [
        ["shorts_0089.jpg", "skirt_0042.jpg"]
    ]
    assert found.across(pictures.labels).tolist() == [0]
