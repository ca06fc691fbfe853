"""What a trial keeps in the home: checkpoints, learning curve, weights."""

from __future__ import annotations

import logging

import numpy as np

from automl.domain.trial import Trial
from automl.errors import NotFoundError, TrainingError
from automl.runs.context import StepContext
from automl.storage.leases import KeepAlive
from automl.training.checkpoint import Checkpoint, EpochResult
from automl.training.results import curve_to_bytes, weights_from_bytes

Weights = dict[str, np.ndarray]

_CHECKPOINTS_KEPT = 2

log = logging.getLogger(__name__)


class TrialStorage:
    """The files of one attempt: two checkpoints, the curve, and what is measured at the end.

    Args:
        context: the step's context.
        trial: the trial as this worker has claimed it.
        alive: its lease; nothing is written after it is lost.
        start: the checkpoint that the attempt goes on from, or None.
    """

    def __init__(
        self, context: StepContext, trial: Trial, alive: KeepAlive, start: Checkpoint | None
    ) -> None:
        self._store, self._alive = context.store, alive
        self._keys = context.keys.trial(trial.number, trial.attempt)
        self._curve: list[EpochResult] = [] if start is None else list(start.curve)
        self._checkpoints: list[str] = []

    def put_weights(self, data: bytes) -> str:
        """Write the best weights, and return their key."""
        return self._put(self._keys.weights, data)

    def put_validation(self, data: bytes) -> str:
        """Write what the best weights predict for held-out rows, and return the key."""
        return self._put(self._keys.validation, data)

    def add_epoch(self, epoch: EpochResult) -> None:
        """Add an epoch to the learning curve."""
        self._curve.append(epoch)
        log.info(
            "epoch %d: loss %.4f, selection accuracy %s",
            epoch.epoch, epoch.train_loss, epoch.selection_accuracy,
        )  # fmt: skip
        self._put(self._keys.curve, curve_to_bytes(self._curve))

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint; of those before it the last one stays."""
        key = self._keys.checkpoint(checkpoint.epoch)
        self._put(key, checkpoint.to_bytes())
        if key in self._checkpoints:
            return
        self._checkpoints.append(key)
        while len(self._checkpoints) > _CHECKPOINTS_KEPT:
            self._store.delete(self._checkpoints.pop(0))

    def _put(self, key: str, data: bytes) -> str:
        """Write a file unless the trial's lease is lost."""
        self._alive.check()
        self._store.put(key, data)
        return key


def load_weights(context: StepContext, trial: Trial) -> Weights:
    """Return the best weights of a finished trial.

    Raises:
        TrainingError: it has none.
        NotFoundError: they have been removed.
        DamagedDataError: they are not what was written.
    """
    key = trial.measurement.weights
    if key is None:
        raise TrainingError(f"Trial {trial.number} has no weights.", "choose a completed trial")
    try:
        return load_tensors_of(context, key)
    except NotFoundError as error:
        raise NotFoundError(
            f"The weights of trial {trial.number} are gone: {error.message}",
            "restore them from a backup of the home, or start a new run",
        ) from error


def load_tensors_of(context: StepContext, key: str) -> Weights:
    """Return the weights stored under `key`.

    Raises:
        DamagedDataError: they are not what was written.
    """
    return weights_from_bytes(context.store.get(key).data, key)
