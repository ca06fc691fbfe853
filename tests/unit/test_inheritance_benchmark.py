from __future__ import annotations

import math

import numpy as np
import pytest

from automl.training.examples import Examples
from benchmarks.inheritance import Data, Plan, epochs_to_reach, median_epochs, report, run_pair


@pytest.mark.parametrize(
    ("target", "expected"), [(0.9, 1), (0.5, 3), (0.49, 4), (0.3, 4), (0.29, None)]
)
def test_the_first_epoch_at_the_target_counts(target: float, expected: int | None) -> None:
    assert epochs_to_reach([0.9, 1.2, 0.5, 0.3, 0.6], target) == expected


def test_never_counts_as_infinitely_many_epochs() -> None:
    assert median_epochs([4, None, 9]) == 9
    assert median_epochs([None, 4, None]) == math.inf


def test_the_table_counts_who_never_got_there() -> None:
    rows = [
        {
            "plan": {"dataset": "digits"}, "epochs": epochs, "accuracy": [90.0, 88.0],
            "difference": {"mean": gain, "error": 1.0},
        }
        for epochs, gain in ((5, 1.0), (7, 3.0), (None, 2.0))
    ]  # fmt: skip

    lost = {"plan": {"dataset": "digits", "pair": 8}, "diverged": "The loss is nan."}

    _, _, line, _, missing = report([*rows, lost])

    assert missing == "diverged, and left out: {'dataset': 'digits', 'pair': 8}"
    assert line == "| digits | 3 | 7 [5, inf] | 1 | 90.00 | 88.00 | +2.00 ± 0.58 |"


def test_a_pair_has_a_curve_of_either_start() -> None:
    rng = np.random.default_rng(0)

    def examples(count: int) -> Examples:
        labels = rng.integers(0, 2, count)
        images = rng.integers(0, 128, (count, 8, 8, 3)) + 100 * labels[:, None, None, None]
        return Examples(images.astype(np.uint8), labels)

    data = Data(examples(130), examples(40), examples(30), classes=2, size=8)

    row = run_pair(Plan("digits", 1, epochs=4), data)

    assert row["moves"]
    assert len(row["scratch_losses"]) == len(row["inherited_losses"]) == 4
    assert row["epochs"] == epochs_to_reach(row["scratch_losses"], row["target"])
    assert row["inherited_losses"][0] < row["scratch_losses"][0]
