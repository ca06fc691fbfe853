import numpy as np
import pytest

from automl.errors import ParityError
from automl.onnx.model import OnnxModel
from automl.publishing.manifest import Parity
from automl.publishing.parity import batches, check_parity
from automl.tracks.track import Feed, Tolerance
from tests.files import sum_file

ROWS: list[Feed] = [
    {"a": np.array([[float(row)]], np.float32), "b": np.array([[1.0]], np.float32)}
    for row in range(5)
]
SUMS = np.array([[row + 1.0] for row in range(5)], np.float32)


def _parity(reference: np.ndarray, tolerance: Tolerance) -> Parity:
    return check_parity(reference, OnnxModel(sum_file()), ROWS, tolerance)


def test_values_have_no_labels_to_differ_in() -> None:
    assert _parity(SUMS, Tolerance(1e-6)) == Parity(
        rows=5, max_abs_diff=0.0, label_mismatches=0, ok=True
    )


def test_a_value_may_be_as_far_away_as_the_track_allows() -> None:
    reference = SUMS.copy()
    reference[2] += 0.25

    assert not _parity(reference, Tolerance(0.2)).ok
    assert _parity(reference, Tolerance(0.3)).ok
    assert _parity(reference, Tolerance(0.3)).max_abs_diff == 0.25


def test_differences_may_count_in_units_of_the_largest_value() -> None:
    small, large = SUMS + 0.01, 100 * SUMS + 0.01
    feeds = [{name: 100 * column for name, column in row.items()} for row in ROWS]
    model, tolerance = OnnxModel(sum_file()), Tolerance(max_abs_diff=1e-3, relative=True)

    assert not check_parity(small, model, ROWS, tolerance).ok
    assert check_parity(large, model, feeds, tolerance).ok
    assert not check_parity(large, model, feeds, Tolerance(1e-3)).ok


def test_references_of_another_number_of_rows_are_refused() -> None:
    with pytest.raises(ParityError, match=r"shape \(4, 1\); there are 5 rows and 0 labels"):
        _parity(SUMS[1:], Tolerance(1.0))


def test_neighbours_of_equal_shapes_are_one_feed_of_at_most_32_rows() -> None:
    shapes = [(1, 2)] * 40 + [(1, 3)] + [(1, 2)] * 2
    feeds = [
        {"a": np.full(shape, place), "b": np.ones((1, 1))} for place, shape in enumerate(shapes)
    ]

    found = list(batches(feeds))

    assert [feed["a"].shape for feed in found] == [(32, 2), (8, 2), (1, 3), (2, 2)]
    assert [feed["b"].shape for feed in found] == [(32, 1), (8, 1), (1, 1), (2, 1)]
    assert np.concatenate([feed["a"][:, 0] for feed in found]).tolist() == list(range(43))
