from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl.errors import DamagedDataError, NewerSchemaError
from automl.training.checkpoint import Checkpoint, EpochResult

GOLDEN = Path(__file__).parent / "golden"
EPOCH = EpochResult(0, 1.25, 0.5, 0.875, 0.1, 3.5)


def arrays(value: float) -> dict[str, np.ndarray]:
    return {
        "1.weight": np.full((2, 3, 1, 1), value, np.float32),
        "2.running_var": np.array([value, 1 / 3], np.float32),
    }


def checkpoint() -> Checkpoint:
    return Checkpoint(
        epoch=1,
        step=2,
        loss_sum=1 / 3,
        stale_epochs=0,
        seconds=4.5,
        epochs=30,
        micro_batch=16,
        resolution=48,
        curve=(EPOCH,),
        best_epoch=0,
        updates=12,
        weights=arrays(0.1),
        momentum={"1.weight": np.full((2, 3, 1, 1), -0.5, np.float32)},
        squares={"1.weight": np.full((2, 3, 1, 1), 0.25, np.float32)},
        averaged=arrays(0.3),
        best_weights=arrays(0.2),
    )


def assert_equal(found: Checkpoint, expected: Checkpoint) -> None:
    for name in (field.name for field in fields(Checkpoint)):
        value, wanted = getattr(found, name), getattr(expected, name)
        if isinstance(wanted, dict):
            assert value.keys() == wanted.keys(), name
            for key in wanted:
                np.testing.assert_array_equal(value[key], wanted[key])
        else:
            assert value == wanted, name


def with_document(data: bytes, **changes: object) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    document = json.loads(header["__metadata__"]["checkpoint"]) | changes
    header["__metadata__"]["checkpoint"] = json.dumps(document)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def test_a_checkpoint_comes_back_as_it_was() -> None:
    assert_equal(Checkpoint.from_bytes(checkpoint().to_bytes()), checkpoint())


def test_a_checkpoint_before_the_first_epoch_comes_back_as_it_was() -> None:
    early = replace(
        checkpoint(), epoch=0, curve=(), best_epoch=None, best_weights={}, momentum={}, squares={}
    )

    found = Checkpoint.from_bytes(early.to_bytes())

    assert_equal(found, early)
    assert found.best is None


def test_equal_checkpoints_give_equal_bytes() -> None:
    shuffled = replace(checkpoint(), weights=dict(reversed(arrays(0.1).items())))

    assert checkpoint().to_bytes() == shuffled.to_bytes()


def test_arrays_that_are_not_contiguous_are_stored_by_value() -> None:
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T

    found = Checkpoint.from_bytes(replace(checkpoint(), momentum={"1.weight": turned}).to_bytes())

    np.testing.assert_array_equal(found.momentum["1.weight"], turned)


def test_the_golden_file_of_schema_1_still_loads() -> None:
    found = Checkpoint.from_bytes((GOLDEN / "checkpoint-1.safetensors").read_bytes())

    unknown = replace(checkpoint(), epochs=0, micro_batch=0, resolution=0, updates=0, squares={})
    assert_equal(found, replace(unknown, averaged=unknown.weights))


def test_the_golden_file_of_schema_2_still_loads() -> None:
    found = Checkpoint.from_bytes((GOLDEN / "checkpoint-2.safetensors").read_bytes())

    assert_equal(found, replace(checkpoint(), updates=0, squares={}))


def test_the_golden_file_of_schema_3_still_loads() -> None:
    data = (GOLDEN / "checkpoint-3.safetensors").read_bytes()

    assert_equal(Checkpoint.from_bytes(data), checkpoint())
    assert checkpoint().to_bytes() == data


@settings(max_examples=200, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found(place: float, bit: int) -> None:
    data = bytearray(checkpoint().to_bytes())
    data[int(place * len(data))] ^= 1 << bit

    try:
        found = Checkpoint.from_bytes(bytes(data))
    except (DamagedDataError, NewerSchemaError):
        return
    assert_equal(found, checkpoint())  # the padding of the header carries nothing


@settings(max_examples=50, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True))
def test_a_cut_checkpoint_is_refused(place: float) -> None:
    data = checkpoint().to_bytes()

    with pytest.raises(DamagedDataError, match="is damaged"):
        Checkpoint.from_bytes(data[: int(place * len(data))])


@pytest.mark.parametrize("changes", [{"schema": "x"}, {"state": {}}, {"sha256": "0"}])
def test_a_document_that_is_no_checkpoint_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(DamagedDataError, match="is damaged"):
        Checkpoint.from_bytes(with_document(checkpoint().to_bytes(), **changes))


def test_a_newer_checkpoint_is_refused_with_the_remedy() -> None:
    with pytest.raises(NewerSchemaError, match=r"schema 4; .* up to 3\. Hint: upgrade"):
        Checkpoint.from_bytes(with_document(checkpoint().to_bytes(), schema=4))
