from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl.domain.training import CurvePoint
from automl.errors import DamagedDataError, NewerSchemaError
from automl.runs.curves import curve_from_bytes, curve_to_bytes
from automl.training.results import weights_from_bytes, weights_to_bytes

GOLDEN = Path(__file__).parent / "golden"
KEY = "studies/digits/trials/0/1/file"
WEIGHTS: dict[str, np.ndarray] = {
    "1.weight": np.arange(6, dtype=np.float32).reshape(2, 3) / 8,
    "1.bias": np.asarray([0.5, -0.25], np.float32),
}
CURVE = [
    CurvePoint(0, 0.5, 0.25, 0.125, 2.0, 2.25, 1.5, details={"learning_rate": 0.05}),
    CurvePoint(1, 1.0, None, train_loss=1.75, seconds=3.0, is_full=False),
]
OLD_CURVE = [  # of releases that told no share of the training
    CurvePoint(0, 0.0, 0.25, None, 2.0, 2.25, 1.5, details={"learning_rate": 0.05}),
    CurvePoint(1, 0.0, None, None, None, 1.75, 3.0, details={"learning_rate": 0.025}),
]
NO_DETAILS = {"examples": 0, "evaluation_seconds": 0.0, "resolution": 0}


def assert_equal(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_weights_and_curves_come_back_as_they_were() -> None:
    assert_equal(weights_from_bytes(weights_to_bytes(WEIGHTS), KEY), WEIGHTS)
    assert curve_from_bytes(curve_to_bytes(CURVE), KEY) == CURVE
    assert curve_from_bytes(curve_to_bytes([]), KEY) == []


def test_the_golden_files_of_each_schema_still_load() -> None:
    assert_equal(weights_from_bytes((GOLDEN / "weights-1.safetensors").read_bytes(), KEY), WEIGHTS)
    assert curve_from_bytes((GOLDEN / "curve-1.jsonl").read_bytes(), KEY) == OLD_CURVE
    detailed = [replace(one, details={**one.details, **NO_DETAILS}) for one in OLD_CURVE]
    assert curve_from_bytes((GOLDEN / "curve-2.jsonl").read_bytes(), KEY) == detailed
    assert curve_from_bytes((GOLDEN / "curve-3.jsonl").read_bytes(), KEY) == CURVE


def test_equal_weights_give_equal_bytes() -> None:
    assert weights_to_bytes(WEIGHTS) == weights_to_bytes(dict(reversed(WEIGHTS.items())))


@settings(max_examples=200, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_of_weights_is_found(place: float, bit: int) -> None:
    data = bytearray(weights_to_bytes(WEIGHTS))
    data[int(place * len(data))] ^= 1 << bit

    try:
        found = weights_from_bytes(bytes(data), KEY)
    except (DamagedDataError, NewerSchemaError) as error:
        assert KEY in error.message  # noqa: PT017 - either kind is right
        return
    assert_equal(found, WEIGHTS)  # the padding of the header carries nothing


@settings(max_examples=200, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_of_a_curve_is_found(place: float, bit: int) -> None:
    data = bytearray(curve_to_bytes(CURVE))
    data[int(place * len(data))] ^= 1 << bit

    try:
        found = curve_from_bytes(bytes(data), KEY)
    except (DamagedDataError, NewerSchemaError) as error:
        assert KEY in error.message  # noqa: PT017 - either kind is right
        return
    assert found == CURVE  # an older schema carries nothing


@pytest.mark.parametrize("length", [0, 1, 7, 8, 40, -1])
def test_cut_weights_and_curves_are_refused(length: int) -> None:
    with pytest.raises(DamagedDataError, match=f"{KEY} holds no weights"):
        weights_from_bytes(weights_to_bytes(WEIGHTS)[:length], KEY)
    with pytest.raises(DamagedDataError, match=f"{KEY} is no learning curve"):
        curve_from_bytes(curve_to_bytes(CURVE)[:length], KEY)


def test_what_a_newer_version_wrote_is_refused_with_the_remedy() -> None:
    newer = weights_to_bytes(WEIGHTS).replace(rb"\"schema\": 1", rb"\"schema\": 2")
    with pytest.raises(NewerSchemaError, match=rf"{KEY}: .* schema 2; .* Hint: upgrade"):
        weights_from_bytes(newer, KEY)
    with pytest.raises(NewerSchemaError, match=rf"{KEY} has schema 4; .* Hint: upgrade"):
        curve_from_bytes(json.dumps({"schema": 4}).encode() + b"\n", KEY)


def test_numpy_notices_a_flipped_byte_in_an_array_of_validation_npz() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, labels=np.arange(100))
    data = bytearray(buffer.getvalue())
    data[len(data) // 2] ^= 1

    with (
        np.load(io.BytesIO(data), allow_pickle=False) as stored,
        pytest.raises(zipfile.BadZipFile, match="CRC-32"),
    ):
        stored["labels"]
