from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from automl.domain.specification import Strategy
from automl.steps.study_file import study_spec
from automl.training.examples import Examples
from benchmarks import arms
from benchmarks.accuracy import ARMS, DATASETS, Difference, Unit, accuracy_cell, report, run_missing
from benchmarks.arm_networks import Airbench, SmallResNet
from benchmarks.arm_training import Budget, shifted, train_for
from benchmarks.json_lines import append_line, read_lines
from benchmarks.platform_arm import study_document
from benchmarks.rows import NAMES, load


def line(dataset: str, arm: str, hits: str) -> dict[str, Any]:
    return {
        "dataset": dataset, "arm": arm, "n": len(hits), "correct": hits.count("1"), "hits": hits,
    }  # fmt: skip


def rows(count: int = 160, size: int = 8) -> Examples:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return Examples(images, rng.integers(0, 4, count))


def test_what_is_compared_is_what_there_is() -> None:
    assert tuple(arms.ARMS) == ARMS
    assert NAMES == DATASETS


def test_an_accuracy_has_the_interval_of_wilson() -> None:
    assert accuracy_cell(line("digits", "platform", "1111111110")) == "90.00 [59.58, 98.21]"


def test_a_difference_is_paired_by_row() -> None:
    difference = Difference.of("1101", "1000")

    assert difference.mean == pytest.approx(50.0)
    assert difference.error == pytest.approx(100 * np.std([0, 1, 0, 1], ddof=1) / 2)


def test_other_rows_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="3 and 2 test rows cannot be paired"):
        Difference.of("110", "11")


def test_the_platform_is_compared_with_the_best_of_the_others() -> None:
    found = [
        line("digits", "platform", "1110"),
        line("digits", "airbench", "1111"),
        line("digits", "small-resnet", "1000"),
        line("clothing", "platform", "1100"),
        line("clothing", "small-resnet", "1000"),
    ]

    heading, _, digits, clothing, means = report(found)

    assert [cell.strip() for cell in heading.split("|")[3:6]] == [
        "platform", "small-resnet", "airbench",
    ]  # fmt: skip
    assert digits.endswith("| -25.00 ± 25.00 (airbench) |")
    assert clothing.endswith("| +25.00 ± 25.00 (small-resnet) |")
    assert means == "| mean | | 62.50 | 25.00 | 100.00 (1 of 2) | |"


def test_a_finished_unit_is_not_run_again(tmp_path: Path) -> None:
    unit = Unit("digits", "airbench", 7.0, 0, flip_tests=True)
    kept = {**unit.key, **line("digits", "airbench", "10")}
    append_line(tmp_path / "accuracy.jsonl", kept)

    assert run_missing([unit], tmp_path) == [kept]
    assert read_lines(tmp_path / "accuracy.jsonl") == [kept]


def test_an_arm_that_is_skipped_leaves_no_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unit = Unit("digits", "frozen-features", 7.0, 0, flip_tests=True)

    assert run_missing([unit], tmp_path) == []
    assert read_lines(tmp_path / "accuracy.jsonl") == []
    assert "digits, frozen-features: skipped, its images are no photographs" in (
        capsys.readouterr().err
    )


def test_a_study_is_the_defaults_but_for_rows_and_times(tmp_path: Path) -> None:
    dataset = load("digits", tmp_path)

    spec = study_spec(study_document(dataset, Strategy.RANDOM, (300.0, 120.0), seed=3))

    assert spec.search.time_limit.total_seconds() == 300
    assert spec.final_fit.time_limit.total_seconds() == 120
    changed: Mapping[str, Any] = spec.model_dump(exclude_defaults=True)
    assert changed["search"].keys() == {"strategy", "time_limit", "seed"}
    assert changed["data"].keys() <= {"source", "images", "test_source", "test_fraction"}
    assert spec.data.source == dataset.data["source"]


def test_a_fifth_of_the_digits_are_test_rows_and_no_others(tmp_path: Path) -> None:
    dataset = load("digits", tmp_path)

    train, test = dataset.examples()

    assert (len(train), len(test)) == (1437, 360)
    counts = np.bincount(test.labels)
    assert counts.min() >= 34
    assert counts.max() <= 37
    assert load("digits", tmp_path).test.labels == dataset.test.labels


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_shift_mirrors_what_is_behind_the_border(mirrored: bool) -> None:  # noqa: FBT001
    image = np.arange(25, dtype=np.uint8).reshape(1, 5, 5, 1)
    down, right = 2, -1

    moved = shifted(
        torch.from_numpy(image), torch.tensor([[down], [right]]), torch.tensor([mirrored])
    )

    first = image[:, :, ::-1] if mirrored else image
    padded = np.pad(first, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    expected = padded[:, 2 - down : 7 - down, 2 - right : 7 - right]
    np.testing.assert_array_equal(moved.numpy(), expected)


@pytest.mark.parametrize("make", [SmallResNet, Airbench])
def test_a_training_ends_with_its_epochs_or_its_time(
    make: type[SmallResNet] | type[Airbench],
) -> None:
    train = rows()
    few, none = (make(train, 4, flips=True, seed=0) for _ in range(2))

    by_epochs = train_for(few, train.labels, Budget(60.0, 1, 0, most_epochs=3))
    by_time = train_for(none, train.labels, Budget(1e-9, 1, 0, most_epochs=3))

    assert by_epochs.steps == 3 * (len(train) // few.batch_size)
    assert by_time.steps == 0
    assert not any(torch.isnan(value).any() for value in few.module.state_dict().values())


def test_choosing_the_precision_changes_no_weights() -> None:
    train = rows()
    recipe = Airbench(train, 4, flips=False, seed=0)
    before = {name: value.clone() for name, value in recipe.module.state_dict().items()}

    train_for(recipe, train.labels, Budget(1e-9, 1, 0))

    for name, value in recipe.module.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_the_first_convolution_whitens_the_patches() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (500, 8, 8, 3), dtype=np.uint8)
    images[..., 1] = images[..., 0] // 2 + images[..., 1] // 2  # correlated
    recipe = Airbench(Examples(images, np.zeros(500, np.int64)), 2, flips=False, seed=0)

    normalise, whitening = list(recipe.module.children())[:2]
    with torch.no_grad():
        seen = whitening(normalise(torch.from_numpy(images).permute(0, 3, 1, 2)))

    flat = seen[:, :12].transpose(0, 1).flatten(1)
    covariance = (flat @ flat.T / flat.shape[1]).numpy()
    np.testing.assert_allclose(covariance, np.eye(12), atol=0.02)
    torch.testing.assert_close(seen[:, 12:], -seen[:, :12])


def test_an_image_is_mirrored_in_every_other_epoch() -> None:
    train = rows(size=16)
    train.images[:] = train.images[:, :1, :, :]  # rows alike: a shift down changes nothing
    recipe = Airbench(train, 4, flips=True, seed=0)
    left = torch.arange(len(train))

    def is_mirrored() -> list[bool]:
        shown = recipe.batch(left).permute(0, 2, 3, 1)[:, 0, 4:12]
        plain = torch.from_numpy(train.images)[:, 0]
        windows = [plain[:, start : start + 8] for start in range(3, 6)]
        return [not any(torch.equal(one[i], shown[i]) for one in windows) for i in range(len(left))]

    seen = []
    for epoch in range(3):
        recipe.begin_epoch(epoch)
        seen.append(is_mirrored())

    assert 0 < sum(seen[0]) < len(left)
    assert seen[1] == [not one for one in seen[0]]
    assert seen[2] == seen[0]
