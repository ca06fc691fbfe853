"""Searches within the memory of the workers' devices: obeyed, learned from failures, replayed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from automl.domain.events import SearchEnd, TrialFinished
from automl.domain.facts import SpaceFacts
from automl.domain.settings import Settings
from automl.domain.specification import LimitsSection
from automl.domain.study import Study
from automl.domain.trial import Device, Measurement, Outcome, Trial
from automl.errors import SearchSpaceExhaustedError
from automl.morphism.architecture import Architecture
from automl.morphism.memory import TrainingPlan, memory_need
from automl.morphism.seeds import seed_architectures
from automl.runs import opening
from automl.runs.context import StepContext
from automl.runs.memory import memory_shortage
from automl.runs.proposals import memory_of, search_space
from automl.runs.replay import replay_document
from automl.runs.trials import Claim, TrialSource
from automl.search.memory_model import MemoryBound, correction_of
from automl.steps.study_file import study_spec
from automl.storage.home import ObjectHome
from automl.storage.memory import MemoryObjectStore
from automl.tracks.image.facts import SPACE_VERSION, ImageFacts
from automl.tracks.image.memory import ImageMemory, memory_limit, training_plan

PLAN = TrainingPlan(batch_size=64, evaluation_batch=100)
FACTS = {
    "image_size": 8, "classes": 10, "version": SPACE_VERSION, "batch_size": 64,
    "evaluation_batch": 100, "dataset_bytes": 10**6, "bfloat16": 0,
}  # fmt: skip
NEEDS = sorted(memory_need(seed, PLAN).total for seed in seed_architectures(8, 10))
MB = 10**6
GPU = "NVIDIA H100 80GB HBM3"
Peak = Callable[[int], int | None]  # of a training, by its prediction; None: memory runs out


def facts_with(**changes: int) -> ImageFacts:
    return ImageFacts.read(SpaceFacts.of(FACTS | changes), LimitsSection())


def cpu(memory_bytes: int | None) -> Device:
    return Device(type="cpu", memory_bytes=memory_bytes)


def need_of(trial: Trial) -> int:
    assert trial.candidate is not None
    return memory_need(Architecture.parse(trial.candidate.genotype), PLAN).total


class Searching:
    """A study whose trials take the memory that a function says, and end at once."""

    def __init__(self, **search: Any) -> None:
        document = {
            "name": "digits", "task": "image_classification", "data": {"source": "/rows.npz"},
            "search": {"seed": 7, "workers": 1, "strategy": "random", **search},
        }  # fmt: skip
        self.home = ObjectHome(MemoryObjectStore())
        self.spec = study_spec(document)
        self.context = StepContext.open(Settings("/"), self.spec, "one", "test", self.home)
        opening.open_run(self.context, "snapshot", FACTS)

    def trials(self, count: int, device: Device | None, peak: Peak = int) -> list[Trial]:
        """Let a new worker go through trials, and return them."""
        before = len(self.study.trials)
        source = TrialSource(self.context, "one/0", search_space, device, memory_of)
        for _ in range(count):
            claim = source.take()
            if claim is None:
                break
            self._finish(claim, "cpu" if device is None else device.type, peak)
        return list(self.study.trials[before:])

    def _finish(self, claim: Claim, device: str, peak: Peak) -> None:
        n, predicted = claim.trial.number, need_of(claim.trial)
        taken = peak(predicted)
        fits = taken is not None
        measured = Measurement(
            loss=0.01 * n if fits else None, weights=f"weights-{n}" if fits else None,
            device=device, predicted_bytes=predicted, peak_bytes=taken,
        )  # fmt: skip
        event = TrialFinished(
            at=self.context.clock.now(), n=n, attempt=claim.trial.attempt, run="one",
            outcome=Outcome.COMPLETED if fits else Outcome.OUT_OF_MEMORY, measurement=measured,
        )  # fmt: skip
        self.context.record.commit(lambda _: [event])
        claim.lease.release()

    @property
    def study(self) -> Study:
        return self.context.record.refresh()

    @property
    def is_replayed(self) -> bool:
        return bool(replay_document(self.home, "digits")["ok"])


def test_without_known_memory_candidates_grow_beyond_what_the_other_tests_allow() -> None:
    needs = [need_of(trial) for trial in Searching().trials(30, cpu(None))]

    assert max(needs) > 1.2 * NEEDS[2]


def test_no_candidate_is_predicted_to_take_more_than_its_device_has() -> None:
    searching = Searching()

    found = searching.trials(25, cpu(int(1.1 * NEEDS[2])))

    assert max(need_of(trial) for trial in found) <= 1.1 * NEEDS[2]
    assert {trial.device for trial in found} == {cpu(int(1.1 * NEEDS[2]))}
    assert searching.is_replayed


def test_measured_peaks_correct_what_fits() -> None:
    searching, device = Searching(), cpu(20 * NEEDS[2])

    found = searching.trials(30, device, lambda predicted: 3 * predicted + 5 * NEEDS[2])

    correction = correction_of(found, "cpu")
    assert correction.expected(NEEDS[2]) == pytest.approx(8 * NEEDS[2], rel=0.1)
    later = found[12:]
    assert max(3 * need_of(t) + 5 * NEEDS[2] for t in later) <= 20 * NEEDS[2]
    assert searching.is_replayed


def test_the_limit_of_the_study_is_of_what_was_measured_as_well() -> None:
    limit = 2 * NEEDS[2]
    searching = Searching(limits={"device_memory": f"{limit}B"})

    found = searching.trials(20, cpu(10**12), lambda predicted: 2 * predicted)

    assert max(2 * need_of(trial) for trial in found[8:]) <= max(limit, 2 * NEEDS[0])
    assert searching.is_replayed


def test_a_prediction_alone_never_rules_out_the_smallest_seed() -> None:
    found = Searching().trials(6, cpu(1))

    assert len(found) == 6
    assert need_of(found[0]) == NEEDS[0]
    assert max(need_of(trial) for trial in found) <= NEEDS[0]


def test_nothing_as_large_as_what_ran_out_of_memory_is_tried_again_on_that_type_of_device() -> None:
    searching, most = Searching(), int(1.2 * NEEDS[2])

    def peak(predicted: int) -> int | None:
        return predicted if predicted < most else None

    for _ in range(6):  # a worker that has just started knows it too
        searching.trials(6, cpu(None), peak)

    trials = searching.study.trials
    failed = [trial for trial in trials if trial.outcome is Outcome.OUT_OF_MEMORY]
    assert failed
    for one in failed:
        assert all(need_of(later) < need_of(one) for later in trials[one.number + 1 :])
    assert searching.is_replayed

    elsewhere = searching.trials(20, Device(type=GPU))
    assert max(need_of(trial) for trial in elsewhere) >= most
    assert searching.is_replayed


def test_a_search_ends_when_its_smallest_network_ran_out_of_memory() -> None:
    searching = Searching()

    found = searching.trials(9, cpu(None), lambda _: None)

    run = searching.study.run("one")
    assert run is not None
    assert run.search_end is SearchEnd.EXHAUSTED
    needs = [need_of(trial) for trial in found[:-1]]
    assert {trial.outcome for trial in found[:-1]} == {Outcome.OUT_OF_MEMORY}
    assert needs == sorted(needs, reverse=True)
    assert needs[-1] == NEEDS[0]
    assert found[-1].outcome is Outcome.FAILED
    assert "Every network that the search starts from is predicted" in found[-1].cause
    assert "ran out of memory" in found[-1].cause


def test_a_ticket_without_a_device_is_bounded_by_the_limit_as_it_is() -> None:
    searching = Searching(limits={"device_memory": f"{NEEDS[2]}B"})

    found = searching.trials(12, None, lambda predicted: 5 * predicted)

    assert NEEDS[0] < max(need_of(trial) for trial in found) <= NEEDS[2]
    assert searching.is_replayed


def test_rows_lie_on_the_device_where_they_leave_room() -> None:
    facts = facts_with(dataset_bytes=40)

    assert training_plan(facts, None).dataset_bytes == 0
    assert training_plan(facts, cpu(100)).dataset_bytes == 40
    assert training_plan(facts, cpu(99)).dataset_bytes == 0
    assert training_plan(facts, Device(type=GPU, memory_bytes=100)).dataset_bytes == 40
    assert training_plan(facts, Device(type=GPU, memory_bytes=99)).dataset_bytes == 0
    assert training_plan(facts, Device(type=GPU)).dataset_bytes == 0


def test_a_seed_ruled_out_by_another_limit_does_not_count_as_the_smallest() -> None:
    seeds = sorted(seed_architectures(8, 10), key=lambda seed: memory_need(seed, PLAN).total)
    facts, bound = facts_with(), MemoryBound(most_bytes=1)

    smallest = memory_limit(facts, bound, None, seeds)
    largest = memory_limit(facts, bound, None, seeds[2:])

    assert smallest is not None
    assert largest is not None
    assert (smallest.most_bytes, largest.most_bytes) == (NEEDS[0], NEEDS[2])
    assert memory_limit(facts, None, None, seeds) is None
    with pytest.raises(SearchSpaceExhaustedError):
        memory_limit(facts, MemoryBound(out_of_memory_bytes=NEEDS[0]), None, seeds)


def test_a_final_fit_is_held_to_what_its_trial_took_or_else_to_a_prediction() -> None:
    searching, few, many = Searching(), cpu(30 * MB), cpu(90 * MB)
    first, second = searching.trials(2, many, lambda _: 50 * MB)
    (third,) = searching.trials(1, Device(type=GPU, memory_bytes=10**12))

    def shortage(trial: Trial, limit_bytes: int | None = None) -> str:
        found = searching.study.run("one")
        assert found is not None
        text = None if limit_bytes is None else f"{limit_bytes}B"
        limited = replace(found, limits=LimitsSection.model_validate({"device_memory": text}))
        return memory_shortage(ImageMemory(), searching.study, limited, trial)

    assert shortage(first) == ""
    assert shortage(first, 49 * MB) == (
        "its training took 50,000,000 bytes on cpu, which has 49,000,000"
    )
    reason = shortage(third, 40 * MB)  # no peak on a cpu
    assert reason.startswith("its training is predicted to take up to ")

    searching.trials(1, few, lambda _: 50 * MB)  # a worker of the run with less memory
    assert "which has 30,000,000" in shortage(second)
