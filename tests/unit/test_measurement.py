from __future__ import annotations

import pytest
from pydantic import ValidationError

from automl.domain.trial import Measurement, NetworkMeasurement

NETWORK = NetworkMeasurement(parameters=94762, macs=5120000, batch_size=64, micro_batch=16)


def test_keys_of_networks_in_older_logs_are_gathered() -> None:
    flat = {
        "score": 0.9,
        "parameters": 94762,
        "flops": 5120000,
        "batch_size": 64,
        "micro_batch": 16,
    }

    assert Measurement.model_validate(flat) == Measurement(score=0.9, network=NETWORK)


def test_a_measurement_of_both_forms_is_refused() -> None:
    with pytest.raises(ValidationError, match="flops"):
        Measurement.model_validate({"flops": 1, "network": {"macs": 1}})


def test_older_logs_without_a_measurement_have_no_network() -> None:
    nothing = {"parameters": None, "flops": None, "batch_size": None, "micro_batch": None}

    assert Measurement.model_validate(nothing) == Measurement()


def test_what_is_written_is_read_again() -> None:
    measured = Measurement(score=0.9, network=NETWORK)

    assert Measurement.model_validate(measured.model_dump(mode="json")) == measured


def test_networks_cost_their_macs_and_others_nothing() -> None:
    assert (Measurement(network=NETWORK).cost, Measurement().cost) == (5120000, 0)


def test_gradients_were_accumulated_where_a_forward_pass_has_fewer_examples() -> None:
    whole = NETWORK.model_copy(update={"micro_batch": 64})

    assert Measurement(network=NETWORK).is_accumulated
    assert not Measurement(network=whole).is_accumulated
    assert not Measurement().is_accumulated
