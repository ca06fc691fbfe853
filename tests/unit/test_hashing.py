from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from automl.tracks.image import hashing
from automl.tracks.image.hashing import difference_hashes, thumbnails

shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))


def pictures(seed: int, n: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shape=shapes, strip=st.integers(1, 300))
def test_a_hash_is_the_same_alone_and_among_others_and_by_any_strips(
    seed: int, shape: tuple[int, int], strip: int
) -> None:
    images = pictures(seed, 3, *shape)
    together = difference_hashes(images).tolist()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "_STRIP_PIXELS", strip)
        assert [difference_hashes(image[None])[0] for image in images] == together
        assert difference_hashes(images).tolist() == together


def test_a_bit_tells_whether_an_area_is_brighter_than_the_one_to_its_right() -> None:
    areas = np.zeros((8, 9), np.uint8)
    areas[0, 0] = areas[7, 7] = 200
    image = np.repeat(np.repeat(areas, 5, axis=0), 4, axis=1)[:, :, None].repeat(3, axis=2)

    assert int(difference_hashes(image[None])[0]) == 1 << 63 | 1


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), factor=st.integers(1, 4))
def test_an_image_and_its_enlargement_have_one_hash_and_one_thumbnail(
    seed: int, factor: int
) -> None:
    images = pictures(seed, 2, 12, 7)
    large = images.repeat(factor, axis=1).repeat(factor, axis=2)

    np.testing.assert_array_equal(difference_hashes(large), difference_hashes(images))
    np.testing.assert_array_equal(thumbnails(large, 4), thumbnails(images, 4))


def test_a_thumbnail_has_the_mean_of_each_area() -> None:
    images = pictures(3, 2, 8, 12)

    small = thumbnails(images, 4)

    means = images.reshape(2, 4, 2, 4, 3, 3).mean(axis=(2, 4))
    np.testing.assert_array_equal(small, np.floor(means + 0.5))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), factor=st.integers(2, 7), strip=st.integers(1, 9000))
def test_areas_of_whole_pixels_have_the_mean_that_any_areas_have(
    seed: int, factor: int, strip: int
) -> None:
    images = pictures(seed, 3, 4 * factor, 4 * factor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "_STRIP_PIXELS", strip)
        small = thumbnails(images, 4)

    means = images.reshape(3, 4, factor, 4, factor, 3).mean(axis=(2, 4))
    np.testing.assert_array_equal(small, np.floor(means + 0.5))


def test_smaller_images_are_enlarged_to_a_thumbnail() -> None:
    images = pictures(3, 2, 8, 8)

    small = thumbnails(images)

    np.testing.assert_array_equal(small, images.repeat(4, axis=1).repeat(4, axis=2))


def test_a_slight_change_of_brightness_keeps_most_bits() -> None:
    rng = np.random.default_rng(0)
    image = np.clip(np.cumsum(rng.normal(0, 9, (64, 64, 3)), axis=1) + 128, 10, 240)
    brighter = (image * 1.04 + 2).astype(np.uint8)

    both = np.stack([image.astype(np.uint8), brighter])
    one, other = difference_hashes(both).tolist()

    assert (one ^ other).bit_count() <= 2
