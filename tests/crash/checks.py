"""What must be true of a small night, however often its processes were killed."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from automl.domain.events import RunState, TrialFinished
from automl.domain.invariants import violations
from automl.domain.study import Run, Study, replay
from automl.domain.trial import Outcome, Trial
from automl.publishing.registry import Registry
from automl.publishing.verify import verify_files
from automl.storage.home import Home
from tests.crash.night import RUN, SEARCH, STUDY, TRIALS, Night, StepEnd
from tests.crash.points import Operation

DEATHS = 4  # attempts in which a process died, after which a trial is given up
MOST_DIVERGED = 0.1  # share of the trials
_WITHOUT_EPOCHS = frozenset({Outcome.LOST, Outcome.DIVERGED})  # nothing was measured


def faults_of(home: Home, night: Night) -> list[str]:
    """Return what is wrong with the end of `night`, an empty list if nothing is."""
    events = home.study_log(STUDY).read()
    study = replay(events)
    run = study.run(RUN)
    if run is None:
        return ["the run was never opened"]
    finished = Counter(event.n for _, event in events if isinstance(event, TrialFinished))
    outcomes = [trial.outcome for trial in study.trials]
    return [
        *violations(events),
        *_faults_of_run(run),
        *_faults_of_registry(home, run),
        *([] if _are_measured(outcomes) else [f"the outcomes are {outcomes}"]),
        *_faults_of_trials(study, finished),
        *_faults_of_training(study, night),
        *_faults_of_final_fit(run, night),
    ]


def faults_of_search(home: Home, night: Night) -> list[str]:
    """Return what is wrong with the trials of a night whose search is over."""
    events = home.study_log(STUDY).read()
    study = replay(events)
    finished = Counter(event.n for _, event in events if isinstance(event, TrialFinished))
    return [
        *violations(events),
        *_faults_of_outcomes(study),
        *_faults_of_trials(study, finished),
        *_faults_of_training(study, night),
    ]


def _are_measured(outcomes: Sequence[Outcome | None]) -> bool:
    """Return whether so many trials as there should be have completed, or were judged early."""
    return len(outcomes) == TRIALS and {*outcomes} <= {Outcome.COMPLETED, Outcome.PRUNED}


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


def _faults_of_outcomes(study: Study) -> Iterator[str]:
    """Yield the trials that neither completed nor ended for a reason of their own.

    Those are given up because too many processes died, are stopped because others are better, or
    diverge at a high learning rate: which candidates there are depends on who ends first. Few
    diverge.
    """
    for trial in study.trials:
        is_given_up = trial.outcome is Outcome.LOST and trial.deaths + 1 == DEATHS
        has_diverged = trial.outcome is Outcome.DIVERGED and " loss is " in trial.cause
        was_stopped = trial.outcome is Outcome.PRUNED and trial.cause.startswith(("rung", "after"))
        has_reason = is_given_up or has_diverged or was_stopped
        if trial.outcome is not Outcome.COMPLETED and not has_reason:
            yield f"trial {trial.number} is {trial.outcome} at attempt {trial.attempt}"
    diverged = sum(trial.outcome is Outcome.DIVERGED for trial in study.trials)
    if diverged > MOST_DIVERGED * len(study.trials):
        yield f"{diverged} of {len(study.trials)} trials have diverged"


def _faults_of_trials(study: Study, finished: Counter[int]) -> Iterator[str]:
    trials = len(study.trials)
    if finished != dict.fromkeys(range(trials), 1):
        yield f"observations by trial: {dict(finished)}"
    identities = {trial.candidate.identity for trial in study.trials if trial.candidate}
    if len(identities) != trials:
        yield "two trials have the same architecture and genes"


def _faults_of_training(study: Study, night: Night) -> Iterator[str]:
    """Yield the work that was lost although a checkpoint had been stored, or should have been."""
    ends = [end for step, end in night.ends if step == SEARCH]
    yield from _unsaved_attempts(study, ends)
    for trial in [trial for trial in study.trials if trial.outcome not in _WITHOUT_EPOCHS]:
        broken = [end for end in ends if not end.is_well]
        saved = max((_saved_epoch(end, trial) for end in broken), default=0)
        if trial.attempt > 1 and trial.measurement.resumed_at < saved:
            yield (
                f"trial {trial.number} resumed at epoch {trial.measurement.resumed_at} although "
                f"epoch {saved} was stored"
            )
        lost = sum(_unsaved_epochs(end, trial) for end in broken)
        trained = sum(len(_epochs(end, trial)) for end in ends)
        if not trial.measurement.epochs <= trained <= trial.measurement.epochs + lost:
            yield f"{trained} epochs of trial {trial.number} were trained for {trial.measurement}"


def _unsaved_attempts(study: Study, ends: list[StepEnd]) -> Iterator[str]:
    """Yield the attempts that were not saved after their first epoch, before they went on."""
    for trial in study.trials:
        for attempt, end in itertools.product(range(1, trial.attempt + 1), ends):
            folder = f"trials/{trial.number}/{attempt}/"
            epochs = len(_puts(end, folder, "curve.jsonl"))
            if epochs > 1 and not _puts(end, folder, "checkpoint"):
                yield f"{epochs} epochs of {folder} left no checkpoint"


def _faults_of_final_fit(run: Run, night: Night) -> Iterator[str]:
    ends = [end for step, end in night.ends if step == "final_fit"]
    broken = sum(not end.is_well for end in ends)
    assert run.final_fit is not None
    saves = sum(len(_puts(end, "runs/", "final-fit.safetensors")) for end in ends)
    if saves > run.final_fit.epochs + broken:
        yield f"the final fit of {run.final_fit.epochs} epochs was saved {saves} times"


def _saved_epoch(end: StepEnd, trial: Trial) -> int:
    """Return the epoch of the last checkpoint that the process stored for the trial's last attempt.

    The last attempt's own are none of them: a process may die after its trial has ended.
    """
    folders = [f"trials/{trial.number}/{attempt}/" for attempt in range(1, trial.attempt)]
    saved = [_epoch(save) for folder in folders for save in _puts(end, folder, "checkpoint")]
    return max(saved, default=0)


def _epochs(end: StepEnd, trial: Trial) -> list[Operation]:
    """Return the operations that stored the trial's curve, one for each epoch trained."""
    return _puts(end, f"trials/{trial.number}/", "curve.jsonl")


def _unsaved_epochs(end: StepEnd, trial: Trial) -> int:
    """Return how many epochs the process trained after its last checkpoint of the trial."""
    saves = [save.number for save in _puts(end, f"trials/{trial.number}/", "checkpoint")]
    return sum(epoch.number > max(saves, default=-1) for epoch in _epochs(end, trial))


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
