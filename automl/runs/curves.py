"""Learning curves: their files, and what is judged of them."""

from __future__ import annotations

from automl.domain.layout import StudyKeys
from automl.domain.objective import Objective
from automl.domain.trial import Trial
from automl.errors import NotFoundError
from automl.search.pruning import CurvePoint
from automl.storage.objects import ObjectStore
from automl.training.checkpoint import EpochResult
from automl.training.results import curve_from_bytes


def read_curve(store: ObjectStore, study: str, trial: Trial) -> list[EpochResult]:
    """Return the learning curve of the trial's last attempt, empty before its first epoch.

    Args:
        store: the home's objects.
        study: the study's name.
        trial: one of its trials.

    Raises:
        DamagedDataError: it is not what was written.
    """
    key = StudyKeys(study).trial(trial.number, trial.attempt).curve
    try:
        data = store.get(key).data
    except NotFoundError:
        return []
    return curve_from_bytes(data, key)


def curve_point(epoch: EpochResult, size: int, objective: Objective) -> CurvePoint | None:
    """Return what an epoch measured.

    None if there are no selection rows, or for an epoch of an earlier release, which did not say
    what share of the training was done.

    Args:
        epoch: the epoch.
        size: height and width of the images that the network is for, in pixels.
        objective: what the search optimises.
    """
    if epoch.selection_loss is None or epoch.selection_accuracy is None or epoch.progress <= 0:
        return None
    return CurvePoint(
        loss=objective.loss(epoch.selection_accuracy),
        log_loss=epoch.selection_loss,
        share=epoch.progress,
        is_whole=epoch.resolution == size,
    )
