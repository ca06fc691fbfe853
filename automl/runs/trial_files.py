"""Files of trials in the home: checkpoints, learning curve, model, predictions."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence

import numpy as np

from automl.domain.training import CurvePoint
from automl.domain.trial import Trial
from automl.errors import NotFoundError, TrainingError
from automl.runs.checkpoints import counting_checkpoints
from automl.runs.context import StepContext
from automl.runs.curves import curve_to_bytes
from automl.storage.leases import KeepAlive
from automl.tracks.track import Checkpoint, Fitted, Predictions

_CHECKPOINTS_KEPT = 2

log = logging.getLogger(__name__)


class TrialStorage:
    """Files of one attempt: two checkpoints, the curve, and what is measured at the end.

    Args:
        context: the step's context.
        trial: the trial as this worker has claimed it.
        alive: its lease; nothing is written after it is lost.
    """

    def __init__(self, context: StepContext, trial: Trial, alive: KeepAlive) -> None:
        self._store, self._alive, self._number = context.store, alive, trial.number
        self._keys = context.keys.trial(trial.number, trial.attempt)
        self._curve: list[CurvePoint] = []
        self._checkpoints: list[str] = []

    def resume(self, curve: Sequence[CurvePoint]) -> None:
        """Take in the curve of the attempts before."""
        log.info("trial %d resumes at epoch %d", self._number, len(curve))
        self._curve = list(curve)

    def add(self, point: CurvePoint) -> None:
        """Add a round to the learning curve."""
        self._curve.append(point)
        log.info("epoch %d: training loss %s, score %s", point.epoch, point.train_loss, point.score)
        self._put(self._keys.curve, curve_to_bytes(self._curve))

    def save(self, position: int, checkpoint: bytes) -> None:
        """Write a checkpoint; of those before it the last one stays."""
        key = self._keys.checkpoint(position)
        self._put(key, checkpoint)
        if key in self._checkpoints:
            return
        self._checkpoints.append(key)
        while len(self._checkpoints) > _CHECKPOINTS_KEPT:
            self._store.delete(self._checkpoints.pop(0))

    def keep(self, fitted: Fitted) -> str | None:
        """Write what a training came to, and return the key of its model, None without any."""
        if fitted.model is None:
            return None
        self._put(self._keys.weights, fitted.model)
        self._put(self._keys.validation, predictions_to_bytes(fitted.judged, fitted.calibration))
        return self._keys.weights

    def _put(self, key: str, data: bytes) -> None:
        """Write a file unless the trial's lease is lost."""
        self._alive.check()
        self._store.put(key, data)


def predictions_to_bytes(
    judged: Predictions | None, calibration: Predictions | None = None
) -> bytes:
    """Return the file of keys, truths and predictions of rows that were not trained on."""
    arrays: dict[str, np.ndarray] = {}
    for name, found in (("judged", judged), ("calibration", calibration)):
        if found is not None:
            arrays[f"{name}_keys"] = np.array(found.keys, dtype=np.str_)
            arrays[f"{name}_truth"] = found.truth
            arrays[f"{name}_values"] = found.values
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def stored_checkpoints(context: StepContext, trial: Trial) -> Iterator[Checkpoint]:
    """Yield the checkpoints that the claimed trial may go on from, the newest first."""
    for key in counting_checkpoints(context, trial):
        try:
            yield Checkpoint(key, context.store.get(key).data)
        except NotFoundError:  # a process that was frozen has tidied up after itself
            log.warning("%s is gone, trying the one before", key)


def load_model(context: StepContext, trial: Trial) -> bytes:
    """Return the best model of a finished trial.

    Raises:
        TrainingError: it has none.
        NotFoundError: it has been removed.
    """
    key = trial.measurement.weights
    if key is None:
        raise TrainingError(f"Trial {trial.number} has no weights.", "choose a completed trial")
    try:
        return context.store.get(key).data
    except NotFoundError as error:
        raise NotFoundError(
            f"The weights of trial {trial.number} are gone: {error.message}",
            "restore them from a backup of the home, or start a new run",
        ) from error
