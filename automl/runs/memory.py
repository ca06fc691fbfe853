"""What fits on a device, as a function of the log: trainings of trials and final fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from automl.domain.study import Run, Study
from automl.domain.trial import Device, Trial
from automl.errors import SearchSpaceExhaustedError
from automl.morphism.architecture import Architecture
from automl.morphism.limits import MemoryLimit
from automl.morphism.memory import RESIDENT_SHARE, Precision, TrainingPlan, memory_need
from automl.search.memory_model import correction_of, memory_bound

BFLOAT16 = "bfloat16"  # in a run's description of its search space: 1 if it trains in that
SHARDS = "shards"  # likewise: copies of the network between which a batch is divided
# derived facts, which are never recorded
_MOST, _RAN_OUT, _RESIDENT = "memory_bytes", "out_of_memory_bytes", "resident_bytes"

Facts = Mapping[str, int | str]


def training_plan(facts: Facts, device: Device | None) -> TrainingPlan:
    """Return what the memory of a run's trainings depends on.

    The rows are on the device, with margins for their shifts, where they leave room for a network;
    else they are streamed.

    Args:
        facts: what `run_opened` records of the search space.
        device: where they run; None if that is not known.

    Raises:
        KeyError: a fact is missing.
    """
    dataset_bytes = 0
    if device is not None:
        dataset_bytes = int(facts.get("dataset_bytes", 0))
        if dataset_bytes > RESIDENT_SHARE * (device.memory_bytes or dataset_bytes):
            dataset_bytes = 0
    return TrainingPlan(
        batch_size=int(facts["batch_size"]),
        evaluation_batch=int(facts.get("evaluation_batch", 0)),
        dataset_bytes=dataset_bytes,
        precision=Precision.BFLOAT16 if facts.get(BFLOAT16, 0) else Precision.FLOAT32,
        shards=int(facts.get(SHARDS, 1)),
    )


def with_memory(run: Run, study: Study, trial: Trial, limit_bytes: int | None) -> Run:
    """Return the run with what bounds the memory of a trial's candidate among its facts.

    Args:
        run: the run that opened the trial.
        study: the prefix of the log that the candidate is computed from.
        trial: the trial; where its log does not tell its device, nothing but the limit counts.
        limit_bytes: `search.limits.device_memory`.
    """
    device = trial.device
    if run.space is None or "batch_size" not in run.space.recorded or device is None:
        return run
    bound = memory_bound(study.trials, device, limit_bytes)
    facts = dict(run.space.recorded)
    facts[_RESIDENT] = training_plan(facts, device).dataset_bytes
    if bound.most_bytes is not None:
        facts[_MOST] = bound.most_bytes
    if bound.out_of_memory_bytes is not None:
        facts[_RAN_OUT] = bound.out_of_memory_bytes
    return replace(run, space=replace(run.space, recorded=facts))


def memory_limit(
    facts: Facts, limit_bytes: int | None, seeds: list[Architecture]
) -> MemoryLimit | None:
    """Return the bound of predicted memory, None without any.

    A correction never rules out the seed that needs least: it may be wrong, and a network has to be
    tried. Only a training that ran out of memory rules it out.

    Args:
        facts: what `run_opened` records, with what `with_memory` adds.
        limit_bytes: `search.limits.device_memory`.
        seeds: those within all other limits.

    Raises:
        KeyError: a fact is missing.
        SearchSpaceExhaustedError: networks that need no more than every seed ran out of memory.
    """
    if limit_bytes is None and not {_MOST, _RAN_OUT} & facts.keys():
        return None
    plan = replace(training_plan(facts, None), dataset_bytes=int(facts.get(_RESIDENT, 0)))
    most = [int(bound) for bound in (limit_bytes, facts.get(_MOST)) if bound is not None]
    least = min([memory_need(seed, plan).total for seed in seeds], default=0)
    bound = min(most) if most else None
    if bound is not None and _MOST in facts:
        bound = max(bound, least)
    if _RAN_OUT in facts:
        ran_out = int(facts[_RAN_OUT])
        if least >= ran_out:
            raise SearchSpaceExhaustedError(
                f"Every network that the search starts from is predicted to take {least:,} bytes "
                "or more, and a training that was predicted to take about as much ran out of "
                "memory.",
                "use a device with more memory, fewer search.workers, or a smaller data.image_size",
            )
        bound = ran_out - 1 if bound is None else min(bound, ran_out - 1)
    assert bound is not None
    return MemoryLimit(bound, plan)


def memory_shortage(study: Study, run: Run, trial: Trial, limit_bytes: int | None) -> str:
    """Return why a final fit of the trial would lack memory on a device of the run, or "".

    A final fit takes the batches and rows of a training, and evaluates nothing meanwhile. Where the
    trial itself was trained on such a device, its peak counts instead of a prediction.

    Args:
        study: the study.
        run: the run; the devices are those of the workers that opened its trials.
        trial: a trial with a candidate.
        limit_bytes: `search.limits.device_memory`.
    """
    if run.space is None or "batch_size" not in run.space.recorded:
        return ""
    assert trial.candidate is not None
    architecture = Architecture.from_genotype(trial.candidate.genotype)
    for device in _devices(study, run):
        limits = [bytes_ for bytes_ in (device.memory_bytes, limit_bytes) if bytes_ is not None]
        measured = trial.measurement
        if measured.device == device.type and measured.peak_bytes is not None:
            need, how = measured.peak_bytes, "took"
        else:
            plan = replace(training_plan(run.space.recorded, device), evaluation_batch=0)
            predicted = memory_need(architecture, plan).total
            need = round(correction_of(study.trials, device.type).upper(predicted))
            how = "is predicted to take up to"
        if limits and need > min(limits):
            return f"its training {how} {need:,} bytes on {device.type}, which has {min(limits):,}"
    return ""


def _devices(study: Study, run: Run) -> list[Device]:
    """Return the device of each type on which the run's workers had least memory, by type."""
    found: dict[str, Device] = {}
    for trial in study.trials:
        device = trial.device if trial.run == run.name else None
        if device is None or device.memory_bytes is None:
            continue
        known = found.get(device.type)
        if known is None or device.memory_bytes < (known.memory_bytes or 0):
            found[device.type] = device
    return [found[name] for name in sorted(found)]
