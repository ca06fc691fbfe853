from __future__ import annotations

import numpy as np
import pytest
import torch

from automl.training.augmentation import Augmentation
from automl.training.examples import Examples
from automl.training.rows import ResidentRows
from automl.training.symmetry import Symmetries

NOTHING = Symmetries(mirror=False, colour=False)
MIRROR = Symmetries(mirror=True, colour=False)
COLOUR = Symmetries(mirror=False, colour=True)
ABOVE = Symmetries(mirror=True, colour=False, turned=True)
CPU = torch.device("cpu")


def changed(
    images: torch.Tensor,
    strength: float,
    symmetries: Symmetries = NOTHING,
    fill: tuple[float, ...] = (0.0,),
    epoch: int = 0,
) -> torch.Tensor:
    augmentation, order = Augmentation(strength, symmetries, fill), np.arange(len(images))
    return torch.cat(batches_of(augmentation, images, order, epoch))


def batches_of(
    augmentation: Augmentation,
    images: torch.Tensor,
    order: np.ndarray,
    epoch: int,
    at_once: int = 128,
) -> list[torch.Tensor]:
    size = images.shape[1]
    draws = augmentation.draw(order, size, (3,), epoch, CPU)
    examples = Examples(images.numpy(), np.zeros(len(images), np.int64))
    rows = ResidentRows(examples, CPU, augmentation.reach(size)).batches(order, at_once)
    starts = range(0, len(order), at_once)
    return [
        batch
        for start, some in zip(starts, rows, strict=True)
        for batch in augmentation.changed(some, draws, start, 64)
    ]


def test_images_move_by_an_eighth_at_most_and_repeat_their_border() -> None:
    images = torch.arange(16 * 16, dtype=torch.uint8).reshape(1, 16, 16, 1).repeat(400, 1, 1, 1)
    padded = np.pad(images[0, :, :, 0].numpy(), 2, mode="edge")
    allowed = {padded[y : y + 16, x : x + 16].tobytes() for y in range(5) for x in range(5)}

    found = changed(images, 1.0)[..., 0].numpy()

    whole = {image.tobytes() for image in found} & allowed
    assert whole == allowed  # 25 places, in the half of the images that keeps every square
    assert found.shape == (400, 16, 16)


def test_one_square_is_cut_out_of_some_images() -> None:
    images = torch.full((400, 16, 16, 3), 9, dtype=torch.uint8)

    found = changed(images, 0.5, MIRROR, fill=(1.0, 2.0, 3.4))

    lost = (found == torch.tensor([1, 2, 3], dtype=torch.uint8)).all(dim=3).sum(dim=(1, 2))
    assert set(lost.tolist()) == {0, 16}
    assert 0.15 < float((lost > 0).double().mean()) < 0.35


def test_only_images_that_bear_it_are_mirrored_in_every_other_epoch() -> None:
    row = torch.tensor([1, 2, 3, 4], dtype=torch.uint8)
    images = row.reshape(1, 1, 4, 1).repeat(64, 4, 1, 1)

    def rows(symmetries: Symmetries, epoch: int = 0) -> list[tuple[int, ...]]:
        found = changed(images, 1e-3, symmetries, epoch=epoch)
        return [tuple(values) for values in found[:, 0, :, 0].tolist()]

    assert set(rows(NOTHING)) == {(1, 2, 3, 4)}
    first, second, third = (rows(MIRROR, epoch) for epoch in range(3))
    assert set(first) == {(1, 2, 3, 4), (4, 3, 2, 1)}
    assert all(one != other for one, other in zip(first, second, strict=True))
    assert third == first


def test_images_seen_from_above_are_shown_in_all_eight_ways() -> None:
    corner = torch.arange(9, dtype=torch.uint8).reshape(3, 3)
    ways = [corner.rot90(turns) for turns in range(4)]
    expected = {tuple(way.flatten().tolist()) for one in ways for way in (one, one.flip(0))}
    images = corner.reshape(1, 3, 3, 1).repeat(400, 1, 1, 1)

    found = changed(images, 1e-3, ABOVE)

    assert len(expected) == 8
    assert {tuple(image.flatten().tolist()) for image in found} == expected


def test_mirroring_follows_the_row_not_its_place_in_the_epoch() -> None:
    row = torch.tensor([1, 2, 3, 4], dtype=torch.uint8)
    images, order = row.reshape(1, 1, 4, 1).repeat(64, 4, 1, 1), np.arange(64)[::-1].copy()
    augmentation = Augmentation(1e-3, MIRROR, (0.0,))

    [found] = batches_of(augmentation, images, order, 0)

    assert torch.equal(found.flip(0), changed(images, 1e-3, MIRROR))


def test_colours_of_photographs_change_and_stay_in_range() -> None:
    images = torch.randint(0, 256, (50, 8, 8, 3), dtype=torch.uint8)

    found = changed(images, 1.0, COLOUR, fill=(0.0, 0.0, 0.0))

    assert found.dtype == torch.float32
    assert 0 <= float(found.min()) <= float(found.max()) <= 255
    ratios = found.mean(dim=(1, 2, 3)) / images.float().mean(dim=(1, 2, 3))
    assert float(ratios.std()) > 0.05


def test_contrast_is_taken_about_the_mean_colour() -> None:
    images = torch.full((50, 8, 8, 3), 100, dtype=torch.uint8)

    found = changed(images, 1.0, COLOUR, fill=(100.0, 100.0, 100.0))

    shift = found.mean(dim=(1, 2)) - 100
    assert float(shift.abs().max()) <= 1.3 * 30 + 1e-3  # what contrast leaves is brightness
    assert float((shift[:, 0] - shift[:, 2]).abs().max()) > 3


@pytest.mark.parametrize("at_once", [64, 192, 1024])
def test_how_many_batches_are_changed_at_once_makes_no_difference(at_once: int) -> None:
    images = torch.randint(0, 256, (500, 16, 16, 3), dtype=torch.uint8)
    augmentation = Augmentation(1.0, Symmetries(mirror=True, colour=True, turned=True), (1.0,) * 3)

    found = batches_of(augmentation, images, np.arange(500), 3, at_once)

    assert [len(batch) for batch in found] == [64] * 7 + [52]
    for one, other in zip(found, batches_of(augmentation, images, np.arange(500), 3), strict=True):
        assert torch.equal(one, other)


def test_without_strength_nothing_changes() -> None:
    images = torch.randint(0, 256, (20, 8, 8, 3), dtype=torch.uint8)

    assert torch.equal(changed(images, 0.0, Symmetries(mirror=True, colour=True)), images)
