"""Predictions of a study's trials, and of its cross-fits, for rows that they did not learn from."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automl.data.label_errors import MeanProbabilities
from automl.domain.layout import AttemptKeys, StudyKeys
from automl.domain.study import Run
from automl.domain.trial import Outcome, Trial
from automl.errors import DamagedDataError, NotFoundError
from automl.storage.objects import ObjectStore
from automl.tracks.track import Predictions

_PARTS = ("judged", "calibration")


@dataclass(frozen=True, slots=True)
class OutOfSample:
    """Mean predictions of trials.

    Attributes:
        means: probabilities of the classes [K], by the digest of the row.
        trials: numbers of the trials whose predictions they are.
        problems: of the predictions that could not be used, a sentence for each trial.
    """

    means: Mapping[str, NDArray[np.float64]]
    trials: tuple[int, ...]
    problems: tuple[str, ...]


def mean_predictions(store: ObjectStore, trials: Sequence[Trial], classes: int) -> OutOfSample:
    """Return the mean predictions of completed trials.

    Args:
        store: holds their files.
        trials: that have learnt from the same training rows.
        classes: number of the classes of these rows.
    """
    mean, used, problems = MeanProbabilities(classes), [], []
    for trial in trials:
        key = trial.measurement.weights
        if trial.outcome is not Outcome.COMPLETED or key is None:
            continue
        try:
            found = read_predictions(store, AttemptKeys.of(key).validation, classes)
        except (NotFoundError, DamagedDataError) as error:
            problems.append(
                f"the predictions of trial {trial.number} are left out: {error.message}"
            )
            continue
        for each in found:
            mean.add(each.keys, each.values)
        used.append(trial.number)
    return OutOfSample(mean.means(), tuple(used), tuple(problems))


@dataclass(frozen=True, slots=True)
class CrossFitted:
    """Predictions of a winner for training rows.

    Attributes:
        values: probabilities of the classes [K], by the digest of the row.
        run: name of the run whose winner it is; "" without any.
        problems: of runs whose predictions could not be used, a sentence for each.
    """

    values: Mapping[str, NDArray[np.float64]]
    run: str
    problems: tuple[str, ...]


def cross_fitted(
    store: ObjectStore, keys: StudyKeys, runs: Sequence[Run], classes: int
) -> CrossFitted:
    """Return what the newest run's cross-fit predicts for training rows, if any run has one.

    Args:
        store: holds the files.
        keys: of the study.
        runs: on one snapshot, oldest first.
        classes: number of the classes of its rows.
    """
    problems = []
    for run in reversed(runs):
        try:
            found = read_predictions(store, keys.run(run.name).cross_fit, classes)
        except NotFoundError:  # there was too little time, or an earlier release ran it
            continue
        except DamagedDataError as error:
            problems.append(f"the cross-fit of run {run.name} is left out: {error.message}")
            continue
        mean = MeanProbabilities(classes)
        for each in found:
            mean.add(each.keys, each.values)
        return CrossFitted(mean.means(), run.name, tuple(problems))
    return CrossFitted({}, "", tuple(problems))


def read_predictions(store: ObjectStore, key: str, classes: int) -> list[Predictions]:
    """Return the probabilities of classes that a file tells of rows that were not trained on.

    Raises:
        NotFoundError: the file was removed.
        DamagedDataError: it is not what was written, or of a release that did not tell the rows.
    """
    data = store.get(key).data
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return list(_parts_of(arrays, classes))
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DamagedDataError(
            f"{key} has no predictions that tell their rows: {error}.",
            "nothing to do: later trials write their own",
        ) from error


def _parts_of(arrays: Mapping[str, NDArray[np.generic]], classes: int) -> Iterator[Predictions]:
    """Yield the predictions for each part.

    Raises:
        ValueError: they are of no known form.
    """
    parts = [part for part in _PARTS if f"{part}_keys" in arrays]
    if not parts:
        raise ValueError("it has none of the arrays judged_keys and calibration_keys")
    for part in parts:
        keys, values = arrays[f"{part}_keys"].tolist(), arrays[f"{part}_values"]
        if values.shape != (len(keys), classes) or not np.isfinite(values).all():
            raise ValueError(
                f"{part}_values is {values.dtype} {list(values.shape)}, for {len(keys)} rows and "
                f"{classes} classes"
            )
        yield Predictions(keys, values.astype(np.float64), arrays[f"{part}_truth"])
