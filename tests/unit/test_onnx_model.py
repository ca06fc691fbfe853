import numpy as np
import pytest

from automl.errors import DataError, ExportError
from automl.onnx.model import OnnxModel
from tests.files import sum_file, unlabelled_file

COLUMNS = {name: np.array([[1.0], [2.5]], np.float32) for name in ("a", "b")}


def test_a_file_of_values_says_what_it_reads_and_computes() -> None:
    model = OnnxModel(sum_file())

    assert (model.inputs, model.outputs, model.labels) == (("a", "b"), ("value",), ())
    assert model.properties["study"] == "sums"


def test_a_file_of_values_predicts_a_column_of_them() -> None:
    values, chosen = OnnxModel(sum_file(scale=2.0)).predict(COLUMNS)

    assert values.dtype == np.float32
    assert values.tolist() == [[4.0], [10.0]]
    assert chosen == ()


@pytest.mark.parametrize(
    "feed",
    [
        {"a": COLUMNS["a"]},
        {**COLUMNS, "b": COLUMNS["b"].astype(np.float64)},
        {**COLUMNS, "b": np.ones((3, 1), np.float32)},
        {**COLUMNS, "c": COLUMNS["a"]},
    ],
)
def test_inputs_that_the_file_does_not_read_are_refused(feed: dict[str, np.ndarray]) -> None:
    with pytest.raises(DataError, match=r"the given bytes cannot read .*'a': 'float32 \(2, 1\)'"):
        OnnxModel(sum_file()).predict(feed)


def test_a_classifier_must_name_its_labels() -> None:
    with pytest.raises(ExportError, match="no JSON list as metadata property labels"):
        OnnxModel(unlabelled_file())
