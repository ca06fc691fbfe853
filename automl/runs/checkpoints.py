"""Which checkpoints of a trial count.

A claim records the checkpoint that it continues from, chosen before the claim is. What the attempt
before writes afterwards, as a process that was frozen may do, is therefore nowhere looked for: of
each attempt only what the log names counts, and what that attempt had written before it.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from automl.domain.trial import Trial
from automl.runs.context import StepContext

_NAME = "checkpoint-"


def checkpoint_key(context: StepContext, trial: Trial, epoch: int) -> str:
    """Return where the trial's present attempt stores its checkpoint of `epoch`."""
    return f"{_folder(context, trial)}/{_NAME}{epoch}.safetensors"


def newest_checkpoint(context: StepContext, trial: Trial) -> str | None:
    """Return the key that the trial's next attempt continues from; None for a fresh start.

    That is the newest checkpoint of the last claimed attempt, or what that attempt began with.
    """
    if trial.attempt == 0:
        return None
    written = _checkpoints(context, _folder(context, trial))
    return written[0] if written else next(reversed(trial.checkpoints), None)


def counting_checkpoints(context: StepContext, trial: Trial) -> list[str]:
    """Return the keys of the checkpoints that the claimed trial may continue from, newest first.

    The later ones are for the case that the first is damaged.
    """
    return [
        key
        for recorded in reversed(trial.checkpoints)
        for key in _checkpoints(context, str(PurePosixPath(recorded).parent))
        if _epoch(key) <= _epoch(recorded)
    ]


def _folder(context: StepContext, trial: Trial) -> str:
    return context.key("trials", trial.number, trial.attempt)


def _checkpoints(context: StepContext, folder: str) -> list[str]:
    keys = (entry.key for entry in context.store.list(f"{folder}/{_NAME}"))
    return sorted(keys, key=_epoch, reverse=True)


def _epoch(key: str) -> int:
    return int(PurePosixPath(key).stem.removeprefix(_NAME))
