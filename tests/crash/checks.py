"""What must be true of a small night, however often its processes were killed."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath

from automl.domain.events import RunState, TrialFinished
from automl.domain.invariants import violations
from automl.domain.study import Run, Study, replay
from automl.domain.trial import Outcome, Trial
from automl.export.registry import Registry
from automl.export.verify import verify_files
from automl.storage.home import Home
from tests.crash.night import RUN, SEARCH, STUDY, TRIALS, Night, StepEnd
from tests.crash.points import Operation


def faults_of(home: Home, night: Night) -> list[str]:
    """Return what is wrong with the end of `night`, an empty list if nothing is."""
    events = home.study_log(STUDY).read()
    study = replay(events)
    run = study.run(RUN)
    if run is None:
        return ["the run was never opened"]
    finished = Counter(event.n for _, event in events if isinstance(event, TrialFinished))
    return [
        *violations(events),
        *_faults_of_run(run),
        *_faults_of_registry(home, run),
        *_faults_of_trials(study, finished),
        *_faults_of_training(study, night),
        *_faults_of_final_fit(run, night),
    ]


def _faults_of_run(run: Run) -> Iterator[str]:
    if run.state is not RunState.SUCCEEDED or not run.promoted:
        yield f"the run ended as {run.state}, promoted: {run.promoted}, cause: {run.cause!r}"


def _faults_of_registry(home: Home, run: Run) -> Iterator[str]:
    registry = Registry(home.store, STUDY)
    if registry.versions() != (run.version,):
        yield f"there are the versions {registry.versions()}, the run reserved {run.version}"
        return
    assert run.version is not None
    if not verify_files(registry, run.version)["ok"]:
        yield f"version {run.version} does not verify"
    champion = registry.champion()
    if champion is None or champion.version != run.version:
        yield f"the champion is {champion}"
    elif home.store.get(f"models/{STUDY}/champion.json").data != champion.to_bytes():
        yield "champion.json is behind"
    if sorted(registry.promotions()) != [1]:
        yield f"the promotions are {sorted(registry.promotions())}"


def _faults_of_trials(study: Study, finished: Counter[int]) -> Iterator[str]:
    if finished != dict.fromkeys(range(TRIALS), 1):
        yield f"observations by trial: {dict(finished)}"
    outcomes = [trial.outcome for trial in study.trials]
    if outcomes != [Outcome.COMPLETED] * TRIALS:
        yield f"the outcomes are {outcomes}"
    identities = {trial.candidate.identity for trial in study.trials if trial.candidate}
    if len(identities) != TRIALS:
        yield "two trials have the same architecture and genes"


def _faults_of_training(study: Study, night: Night) -> Iterator[str]:
    """Yield the work that was lost although a checkpoint had been stored."""
    ends = [end for step, end in night.ends if step == SEARCH]
    usual = max(len(run) for end in ends for trial in study.trials for run in _unsaved(end, trial))
    for trial in study.trials:
        broken = [end for end in ends if not end.is_well]
        saved = max((_saved_epoch(end, trial) for end in broken), default=0)
        if trial.attempt > 1 and trial.measurement.resumed_at < saved:
            yield (
                f"trial {trial.number} resumed at epoch {trial.measurement.resumed_at} although "
                f"epoch {saved} was stored"
            )
        lost = sum(len(_unsaved(end, trial)[-1]) for end in broken)
        if lost > usual:
            yield f"trial {trial.number} lost {lost} epochs, checkpoints are {usual} apart"
        trained = sum(len(_epochs(end, trial)) for end in ends)
        if trained > trial.measurement.epochs + lost:
            yield f"{trained} epochs of trial {trial.number} were trained for {trial.measurement}"


def _faults_of_final_fit(run: Run, night: Night) -> Iterator[str]:
    ends = [end for step, end in night.ends if step == "final_fit"]
    broken = sum(not end.is_well for end in ends)
    assert run.final_fit is not None
    saves = sum(len(_puts(end, "runs/", "final-fit.safetensors")) for end in ends)
    if saves > run.final_fit.epochs + broken:
        yield f"the final fit of {run.final_fit.epochs} epochs was saved {saves} times"


def _saved_epoch(end: StepEnd, trial: Trial) -> int:
    """Return the epoch of the last checkpoint of the trial that the process stored."""
    saved = [_epoch(operation) for operation in _puts(end, f"trials/{trial.number}/", "checkpoint")]
    return max(saved, default=0)


def _epochs(end: StepEnd, trial: Trial) -> list[Operation]:
    """Return the operations that stored the trial's curve, one for each epoch trained."""
    return _puts(end, f"trials/{trial.number}/", "curve.jsonl")


def _unsaved(end: StepEnd, trial: Trial) -> list[list[Operation]]:
    """Return the epochs that the process trained, cut at its checkpoints of the trial."""
    saves = [save.number for save in _puts(end, f"trials/{trial.number}/", "checkpoint")]
    bounds = [-1, *saves, len(end.operations)]
    return [
        [epoch for epoch in _epochs(end, trial) if after < epoch.number < before]
        for after, before in itertools.pairwise(bounds)
    ]


def _puts(end: StepEnd, folder: str, name: str) -> list[Operation]:
    return [
        operation
        for operation in end.operations
        if operation.done
        and operation.name == "put"
        and folder in operation.key
        and PurePosixPath(operation.key).name.startswith(name)
    ]


def _epoch(operation: Operation) -> int:
    return int(PurePosixPath(operation.key).stem.removeprefix("checkpoint-"))
