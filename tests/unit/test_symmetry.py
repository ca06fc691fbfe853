from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from automl.training.examples import Examples
from automl.training.symmetry import Symmetries, find_symmetries
from benchmarks.shared_data import shared_dataset


def split(images: np.ndarray, labels: np.ndarray) -> tuple[Examples, Examples]:
    order = np.random.default_rng(0).permutation(len(labels))
    held_out, train = order[: len(order) // 5], order[len(order) // 5 :]
    return Examples(images[train], labels[train]), Examples(images[held_out], labels[held_out])


def grey(images: np.ndarray) -> np.ndarray:
    return np.repeat(images.astype(np.uint8)[..., None], 3, axis=3)


def test_digits_may_not_be_mirrored() -> None:
    data = load_digits()

    found = find_symmetries(*split(grey(data.images * 15), data.target.astype(np.int64)))

    assert found == Symmetries(mirror=False, colour=False)


@pytest.mark.needs_shared("fashion_mnist_small")
def test_clothes_may_be_mirrored() -> None:
    with np.load(shared_dataset("fashion_mnist_small") / "data.npz") as data:
        rows = split(grey(data["x_train"]), data["y_train"].astype(np.int64))

    assert find_symmetries(*rows) == Symmetries(mirror=True, colour=False)


@pytest.mark.needs_shared("plant_seedlings")
def test_plants_seen_from_above_may_be_turned() -> None:
    place = shared_dataset("plant_seedlings")
    with (place / "train.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    images = [Image.open(place / "images" / row["File Name"]) for row in listed]
    small = [image.convert("RGB").resize((32, 32), Image.Resampling.BOX) for image in images]
    names = sorted({row["Label"] for row in listed})
    labels = np.array([names.index(row["Label"]) for row in listed])
    rows = split(np.stack([np.asarray(image) for image in small]), labels)

    assert find_symmetries(*rows) == Symmetries(mirror=True, colour=True, turned=True)


def test_coloured_images_of_some_size_are_photographs() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 400)
    colours = np.where(labels[:, None], [200, 60, 30], [30, 60, 200])
    images = np.clip(colours[:, None, None] + rng.normal(0, 30, (400, 32, 32, 3)), 0, 255)
    rows = split(images.astype(np.uint8), labels.astype(np.int64))

    assert find_symmetries(*rows).colour
    small = [Examples(part.images[:, :16, :16], part.labels) for part in rows]
    assert not find_symmetries(*small).colour


def test_labels_that_nothing_tells_allow_no_mirroring() -> None:
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (300, 8, 8, 3)).astype(np.uint8)

    assert not find_symmetries(*split(images, rng.integers(0, 30, 300))).mirror


def test_without_held_out_rows_nothing_is_assumed() -> None:
    rows = Examples(np.zeros((3, 8, 8, 3), np.uint8), np.zeros(3, np.int64))
    none = Examples(rows.images[:0], rows.labels[:0])

    assert find_symmetries(rows, none) == Symmetries(mirror=False, colour=False)
