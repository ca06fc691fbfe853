"""Checkpoints of a trial that count.

A claim records the checkpoint that it continues from, chosen before the claim is. What the attempt
before writes afterwards, as a process that was frozen may do, is therefore nowhere looked for: of
each attempt only what the log names counts, and what that attempt had written before it.
"""

from __future__ import annotations

from automl.domain.layout import AttemptKeys, checkpoint_epoch
from automl.domain.trial import Trial
from automl.runs.context import StepContext


def newest_checkpoint(context: StepContext, trial: Trial) -> str | None:
    """Return the key that the trial's next attempt continues from; None for a fresh start.

    That is the newest checkpoint of the last claimed attempt, or what that attempt began with.
    """
    if trial.attempt == 0:
        return None
    written = _checkpoints(context, context.keys.trial(trial.number, trial.attempt))
    return written[0] if written else next(reversed(trial.checkpoints), None)


def counting_checkpoints(context: StepContext, trial: Trial) -> list[str]:
    """Return the keys of the checkpoints that the claimed trial may continue from, newest first.

    The later ones are for the case that the first is damaged.
    """
    return [
        key
        for recorded in reversed(trial.checkpoints)
        for key in _checkpoints(context, AttemptKeys.of(recorded))
        if checkpoint_epoch(key) <= checkpoint_epoch(recorded)
    ]


def _checkpoints(context: StepContext, keys: AttemptKeys) -> list[str]:
    found = (entry.key for entry in context.store.list(keys.checkpoints))
    return sorted(found, key=checkpoint_epoch, reverse=True)
