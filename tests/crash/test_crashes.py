"""Kills before and after storage operations of a small night; after a restart nothing is missing.

By default an operation of each step, drawn with a fixed seed; every one of them in the soak.
"""

from __future__ import annotations

import dataclasses
import os
import random
from typing import Any

import pytest

from automl.storage.open import open_home
from tests.crash.checks import faults_of
from tests.crash.conftest import MakePlace
from tests.crash.home import copy_home
from tests.crash.night import RUN, SEARCH, STEPS, STUDY, Night, Place, StepEnd, small_study
from tests.crash.points import Crash, Fault, Operation

_AFTER_SEARCH = STEPS[STEPS.index(SEARCH) + 1 :]
_WEIGHTS = f"studies/{STUDY}/runs/{RUN}/weights.safetensors"


@dataclasses.dataclass(frozen=True, slots=True)
class Milestones:
    """A night that nothing befell.

    Attributes:
        study: its document.
        places: by step, copies of the state before it.
        ends: by step, how the processes of all steps before it ended.
        operations: by step, the storage operations of that of its processes which made most.
        weights: what it published. They follow from the trials, in which workers race.
    """

    study: dict[str, Any]
    places: dict[str, Place]
    ends: dict[str, list[tuple[str, StepEnd]]]
    operations: dict[str, list[Operation]]
    weights: bytes = b""


@pytest.fixture(scope="module")
def milestones(make_place: MakePlace, tmp_path_factory: pytest.TempPathFactory) -> Milestones:
    study = small_study(tmp_path_factory.mktemp("source") / "rows.npz")
    place = make_place()
    night, found = Night(place, study), Milestones(study, {}, {}, {})
    for step in STEPS:
        found.places[step], found.ends[step] = make_place(), [*night.ends]
        copy_home(place.settings, found.places[step].settings)
        night.run(step)
        traces = [
            [operation for operation in end.operations if operation.done]
            for name, end in night.ends
            if name == step
        ]
        found.operations[step] = max(traces, key=len)
    home = open_home(place.settings)
    assert faults_of(home, night) == []
    return dataclasses.replace(found, weights=home.store.get(_WEIGHTS).data)


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_at_a_storage_operation_is_made_up_for(
    step: str, milestones: Milestones, make_place: MakePlace
) -> None:
    rng = random.Random(step)  # noqa: S311 - a fixed choice
    crash = Crash(rng.randrange(len(milestones.operations[step])), rng.choice([*Fault]))

    assert _faults(step, crash, milestones, make_place) == []


def test_a_kill_between_promotion_and_champion_is_made_up_for(
    milestones: Milestones, make_place: MakePlace
) -> None:
    (number,) = (
        number
        for number, operation in enumerate(milestones.operations["promote"])
        if operation.is_write and operation.key.endswith("promotions/1.json")
    )

    assert _faults("promote", Crash(number, Fault.KILL_AFTER), milestones, make_place) == []


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("fault", [*Fault])
@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_at_any_storage_operation_is_made_up_for(
    step: str, fault: Fault, milestones: Milestones, make_place: MakePlace
) -> None:
    """Only writes fail on both sides: after a read nothing is stored that was not before it."""
    crashes = [
        Crash(number, fault)
        for number, operation in enumerate(milestones.operations[step])
        if fault is Fault.KILL_BEFORE or operation.is_write
    ]
    every = int(os.environ.get("AUTOML_SOAK_EVERY", "1"))

    found = [
        fault
        for crash in crashes[::every]
        for fault in _faults(step, crash, milestones, make_place)
    ]

    assert found == []


def _faults(step: str, crash: Crash, milestones: Milestones, make_place: MakePlace) -> list[str]:
    """Run the night from `step` on, with `crash` in it, and return what is wrong with its end."""
    place = make_place()
    copy_home(milestones.places[step].settings, place.settings)
    night = Night(place, milestones.study, milestones.ends[step])
    try:
        night.run(step, crash)
        for later in STEPS[STEPS.index(step) + 1 :]:
            night.run(later)
        home = open_home(place.settings)
        found = faults_of(home, night)
        if step in _AFTER_SEARCH and home.store.get(_WEIGHTS).data != milestones.weights:
            found.append("other weights are published than without a crash")
    except AssertionError as error:
        found = [str(error)]
    return [f"{crash}: {fault}" for fault in found]
