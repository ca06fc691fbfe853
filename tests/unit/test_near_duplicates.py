from __future__ import annotations

import csv
from dataclasses import dataclass
from itertools import combinations

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from automl.data import near_duplicates
from automl.data.near_duplicates import (
    Straddler,
    candidate_pairs,
    clusters_of,
    exact_duplicates,
    find_near_duplicates,
    rms,
    straddlers,
)
from automl.tracks.image.decode import decode_image
from automl.tracks.image.hashing import difference_hashes, thumbnails
from benchmarks.shared_data import shared_dataset

hashes = st.integers(0, 2**64 - 1)
flips = st.lists(st.integers(0, 63), max_size=9)


def words(numbers: list[int]) -> NDArray[np.uint64]:
    return np.array(numbers, np.uint64)


def flipped(number: int, bits: list[int]) -> int:
    for bit in bits:
        number ^= 1 << bit
    return number


def pictures(*halves: tuple[int, int]) -> NDArray[np.uint8]:
    """Return grey pictures, uint8 [n, 8, 8, 1], given the values of their halves."""
    values = np.array(halves, np.uint8)[:, None, :, None]
    return np.repeat(np.repeat(values, 8, axis=1), 4, axis=2)


def shades(*values: int) -> NDArray[np.uint8]:
    """Return pictures that differ from each other by these values alone."""
    return pictures(*[(each, each + 50) for each in values])


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
    found = find_near_duplicates(words([]), np.zeros((0, 8, 8, 1), np.uint8).__getitem__)

    assert found.pairs.shape == (0, 2)
    assert found.clusters == ()


def test_a_candidate_is_confirmed_by_its_thumbnail() -> None:
    images = pictures((100, 200), (100, 220), (100, 214))

    found = find_near_duplicates(words([5, 5, 5]), images.__getitem__)

    assert pairs_of(found.pairs) == [(0, 2), (1, 2)]
    np.testing.assert_allclose(found.distances, [14 / 2**0.5, 6 / 2**0.5])
    assert found.clusters == ((0, 1, 2),)


@given(
    rows=arrays(np.uint8, (5, 8, 8, 3)), close=arrays(np.uint8, (5, 8, 8, 3), elements=st.just(9))
)
def test_sums_over_areas_refute_no_pair_that_is_near(
    rows: NDArray[np.uint8], close: NDArray[np.uint8]
) -> None:
    images = np.concatenate([rows, np.minimum(rows, 246) + close])

    found = find_near_duplicates(words([0] * 10), images.__getitem__)

    pairs = np.array(list(combinations(range(10), 2)))
    variances = images.reshape(10, -1).astype(float).var(axis=1)[pairs].mean(axis=1)
    contrasts = variances**0.5
    near = pairs[(rms(images, pairs) <= np.minimum(10.0, 0.5 * contrasts)) & (contrasts >= 8)]
    assert pairs_of(found.pairs) == pairs_of(near)


def test_flat_pictures_tell_nothing_of_each_other() -> None:
    images = pictures((4, 6), (4, 9), (5, 5), (5, 5), (100, 104), (100, 105), (9, 29), (9, 30))

    found = find_near_duplicates(words([0] * 8), images.__getitem__)

    assert pairs_of(found.pairs) == [(6, 7)]


def test_thumbnails_of_candidates_alone_are_asked_for() -> None:
    asked: list[list[int]] = []

    def thumbnails_of(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        asked.append(rows.tolist())
        return shades(*[0] * len(rows))

    found = find_near_duplicates(words([5, 2**60 - 1, 7, 2**63 - 2**50]), thumbnails_of)

    assert asked == [[0, 2]]
    assert pairs_of(found.pairs) == [(0, 2)]


def test_equal_digests_are_exact_duplicates() -> None:
    assert exact_duplicates(["a", "b", "a", "c", "b", "a"]) == [(0, 2, 5), (1, 4)]


def test_training_rows_go_where_a_cluster_straddles_and_held_out_rows_stay() -> None:
    images = shades(0, 6, 12, 90, 93, 200, 201)
    levels = np.array([3, 0, 1, 0, 0, 3, 3])
    found = find_near_duplicates(words([0] * 7), images.__getitem__)

    left_out = straddlers(found, levels)

    assert found.clusters == ((0, 1, 2), (3, 4), (5, 6))
    assert left_out == [Straddler(1, 0, 6.0), Straddler(2, 0, 12.0)]


def test_rows_that_are_scored_on_stay_with_training_rows_gone_unless_tests_are_as_near() -> None:
    images = shades(0, 4, 9, 100, 105, 108)
    found = find_near_duplicates(words([0] * 6), images.__getitem__)

    left_out = straddlers(found, np.array([0, 1, 3, 0, 1, 1]))

    assert left_out == [Straddler(0, 2, 9.0), Straddler(1, 2, 5.0), Straddler(3, 4, 5.0)]


def test_a_row_that_others_connect_with_the_last_ones_goes_too() -> None:
    images = shades(0, 8, 16, 24, 100, 150)
    found = find_near_duplicates(words([0] * 6), images.__getitem__)

    left_out = straddlers(found, np.array([0, 0, 0, 3, 0, 0]))

    assert left_out == [Straddler(0, 3, 24.0), Straddler(1, 3, 16.0), Straddler(2, 3, 8.0)]


def test_thousands_of_pictures_of_one_look_are_a_series_and_stay() -> None:
    images = shades(*[0] * 3000, 90, 91)
    levels = np.where(np.arange(3002) < 2000, 0, 3)
    levels[-1] = 0
    found = find_near_duplicates(words([0] * 3002), images.__getitem__)

    assert found.series(3002) == [tuple(range(3000))]
    assert straddlers(found, levels) == [Straddler(3001, 3000, 1.0)]


def test_a_thousand_copies_of_many_pictures_are_left_out_without_all_pairs() -> None:
    images = np.concatenate([shades(*[each] * 300) for each in range(0, 200, 15)])
    hashes = words([each << 32 | each for each in range(14) for _ in range(300)])
    levels = np.where(np.arange(len(images)) % 300 < 200, 0, 3)
    found = find_near_duplicates(hashes, images.__getitem__)

    assert len(found.clusters) == 14
    assert len(straddlers(found, levels)) == 14 * 200


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
    images = [decode_image((folder / "images" / each).read_bytes())[None] for each in names]
    return Pictures(
        list(names),
        np.array(of),
        np.array(parts),
        np.concatenate([difference_hashes(image) for image in images]),
        np.concatenate([thumbnails(image) for image in images]),
    )


def across(pairs: NDArray[np.int64], groups: NDArray[np.str_]) -> list[int]:
    """Return the places of pairs whose rows are of different groups."""
    return np.flatnonzero(groups[pairs[:, 0]] != groups[pairs[:, 1]]).tolist()


@pytest.mark.needs_shared("plant_seedlings")
def test_seedlings_that_were_photographed_twice_are_found() -> None:
    pictures = read("plant_seedlings")

    found = find_near_duplicates(pictures.hashes, pictures.thumbnails.__getitem__)

    assert len(found.pairs) == 44  # of the 45 of all pairs whose thumbnails are as near
    assert found.capped == 0
    assert (found.distances > 0).sum() == 40
    assert across(found.pairs, pictures.labels) == []
    assert len(across(found.pairs, pictures.parts)) == 9
    left_out = straddlers(found, np.where(pictures.parts == "train", 0, 3))
    assert {str(pictures.parts[each.row]) for each in left_out} == {"train"}
    assert {str(pictures.parts[each.near]) for each in left_out} == {"test"}


@pytest.mark.needs_shared("clothing")
def test_a_picture_under_two_labels_is_found() -> None:
    pictures = read("clothing", "shorts", "skirt")

    found = find_near_duplicates(pictures.hashes, pictures.thumbnails.__getitem__)

    assert [[pictures.names[row] for row in pair] for pair in found.pairs.tolist()] == [
        ["shorts_0089.jpg", "skirt_0042.jpg"]
    ]
    assert across(found.pairs, pictures.labels) == [0]
