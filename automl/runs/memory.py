"""Memory of devices, as a function of the log: what fits for candidates and for final fits."""

from __future__ import annotations

from dataclasses import replace

from automl.domain.study import Run, Study
from automl.domain.trial import Device, Trial
from automl.search.memory_model import MemoryBound, correction_of, memory_bound
from automl.tracks.track import Memory


def candidate_bound(
    memory: Memory | None, run: Run, study: Study, trial: Trial
) -> MemoryBound | None:
    """Return what bounds the memory of a trial's candidate; None without any bound.

    Args:
        memory: what trainings of the track take; None where that needs no care.
        run: the run that opened the trial.
        study: the prefix of the log that the candidate is computed from.
        trial: the trial; where its log does not tell its device, nothing but the limit counts.
    """
    if memory is None or run.space is None or trial.device is None:
        return None
    resident = memory.resident_bytes(run.space, trial.device)
    if resident is None:
        return None
    bound = memory_bound(study.trials, trial.device, run.limits.device_memory)
    return replace(bound, resident_bytes=resident)


def memory_shortage(memory: Memory | None, study: Study, run: Run, trial: Trial) -> str:
    """Return why a final fit of the trial would lack memory on a device of the run, or "".

    A final fit takes the batches and rows of a training, and evaluates nothing meanwhile. Where the
    trial itself was trained on such a device, its peak counts instead of a prediction.

    Args:
        memory: what trainings of the track take; None where that needs no care.
        study: the study.
        run: the run; the devices are those of the workers that opened its trials.
        trial: a trial with a candidate.
    """
    if memory is None or run.space is None:
        return ""
    assert trial.candidate is not None
    for device in _devices(study, run):
        predicted = memory.refit_bytes(trial.candidate, run.space, device)
        if predicted is None:
            continue
        bounds = (device.memory_bytes, run.limits.device_memory)
        limits = [limit for limit in bounds if limit is not None]
        measured = trial.measurement
        if measured.device == device.type and measured.peak_bytes is not None:
            need, how = measured.peak_bytes, "took"
        else:
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
