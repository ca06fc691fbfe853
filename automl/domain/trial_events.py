"""Events about one trial, and what each makes of it."""

from __future__ import annotations

import dataclasses

from automl.domain.events import (
    RungReached,
    TrialClaimed,
    TrialFinished,
    TrialProposed,
    TrialReleased,
)
from automl.domain.trial import RungResult, Trial, TrialState

AboutTrial = TrialProposed | TrialClaimed | TrialReleased | RungReached | TrialFinished


def changed(trial: Trial, event: AboutTrial, version: int) -> Trial:
    """Return an unfinished trial after an event of that version."""
    if isinstance(event, TrialProposed):
        return trial if trial.candidate is not None else _proposed(trial, event)
    if isinstance(event, TrialClaimed):
        return _claimed(trial, event) if event.attempt > trial.attempt else trial
    if event.attempt != trial.attempt:  # only the last claimed attempt counts
        return trial
    if isinstance(event, RungReached):
        return _risen(trial, event, version)
    if isinstance(event, TrialReleased):
        return dataclasses.replace(trial, state=TrialState.PROPOSED, releases=trial.releases + 1)
    return dataclasses.replace(
        trial,
        state=TrialState.FINISHED,
        outcome=event.outcome,
        measurement=event.measurement,
        cause=event.cause,
        finished_by=event.run,
        finished_in=version,
    )


def _proposed(trial: Trial, event: TrialProposed) -> Trial:
    return dataclasses.replace(
        trial,
        state=TrialState.PROPOSED,
        strategy=event.strategy,
        candidate=event.candidate,
        based_on=event.based_on,
        repeats=event.repeats,
    )


def _claimed(trial: Trial, event: TrialClaimed) -> Trial:
    checkpoints = trial.checkpoints
    if event.checkpoint is not None and event.checkpoint not in checkpoints:
        checkpoints = (*checkpoints, event.checkpoint)
    return dataclasses.replace(
        trial,
        state=TrialState.CLAIMED,
        attempt=event.attempt,
        worker=event.worker,
        claimed_in=event.run,
        checkpoints=checkpoints,
    )


def _risen(trial: Trial, event: RungReached, version: int) -> Trial:
    """Return the trial with the rung's result; the first one of a rung stands."""
    if any(event.rung == known.rung for known in trial.rungs):
        return trial
    values = event.model_dump(exclude={"type", "at", "n", "attempt", "run"})
    return dataclasses.replace(
        trial, rungs=(*trial.rungs, RungResult(**values, recorded_in=version))
    )
