"""Cross-fitting of a network: each half of the training rows is predicted by a fit on the other."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from automl.data.halves import second_half
from automl.errors import OutOfMemoryError
from automl.tracks.image.refit import fresh_epochs
from automl.tracks.image.rows import LabelledRows, taken
from automl.tracks.track import CrossFit, Predictions
from automl.training.device import cpu_threads, is_out_of_memory
from automl.training.inference import BATCH_ROWS, probabilities_of
from automl.training.module import Weights, build_module, load_weights
from automl.training.problem import FitHooks, FitProblem, InitialWeights
from automl.training.trainer import fit

_FITTING_SHARE = 0.8  # of the time of a half: a forward pass takes a third of a step

log = logging.getLogger(__name__)


def cross_fitted(
    job: CrossFit,
    problem: FitProblem,
    start: InitialWeights | None,
    rows: LabelledRows,
    hooks: FitHooks,
) -> Predictions | None:
    """Return what is predicted for training rows by fits that did not learn from them.

    The fits have the epochs that led to the candidate's best weights, those of its ancestors
    included; the selection rows, which neither learns from, say which epoch is best.

    Args:
        job: what is fitted, and within which time.
        problem: the candidate's training as a trial.
        start: weights that have learnt from none of the rows; None for fresh ones.
        rows: the snapshot's.
        hooks: how the outside takes part.

    Returns:
        None if the outside stopped it, or a fit came to less than an epoch or to nothing. Rows of
        classes that one half alone has are left out.
    """
    if not _has_time(job):
        return None
    budget = replace(problem.budget, epochs=fresh_epochs(job.lineage))
    problem = replace(problem, budget=budget, is_warm=problem.frozen is not None)
    end_s, keys, labels = time.monotonic() + job.left_s, rows.train_keys(), rows.train.labels
    is_second = second_half(keys, labels.tolist())
    try:
        values = _predicted(problem, start, is_second, end_s, hooks)
    except Exception as error:
        if not isinstance(error, OutOfMemoryError) and not is_out_of_memory(error):
            raise
        log.warning("no cross-fit: %r", error)
        return None
    if values is None:
        return None
    places = _places_of_classes_in_both(labels, is_second)
    return Predictions([keys[place] for place in places], values[places], labels[places])


def _places_of_classes_in_both(
    labels: NDArray[np.int64], is_second: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return the rows of classes that both halves have.

    A fit that has seen no row of a class says nothing of those that it predicts.
    """
    in_both = np.intersect1d(labels[is_second], labels[~is_second])
    return np.flatnonzero(np.isin(labels, in_both))


def _has_time(job: CrossFit) -> bool:
    """Return whether there is time for an epoch on each half, as the trial's training timed one.

    It is tried if the trial was not timed.
    """
    measured = job.lineage[0].measurement
    epoch_s = measured.seconds / measured.epochs if measured.seconds and measured.epochs else 0.0
    if _FITTING_SHARE * job.left_s >= epoch_s:
        return True
    log.info("no cross-fit: an epoch takes %.1f s, and %.1f s are left", epoch_s, job.left_s)
    return False


def _predicted(
    problem: FitProblem,
    start: InitialWeights | None,
    is_second: NDArray[np.bool_],
    end_s: float,
    hooks: FitHooks,
) -> NDArray[np.float32] | None:
    """Return the probabilities of the training rows [n, K], None if a fit came to nothing."""
    rows = problem.train
    values = np.zeros((len(rows), problem.architecture.classes), np.float32)
    for number, is_judged in enumerate((is_second, ~is_second)):
        seconds = _FITTING_SHARE * (end_s - time.monotonic()) / (2 - number)
        if (~is_judged).sum() < 2 or seconds <= 0:
            return None
        half = replace(
            problem,
            train=taken(rows, np.flatnonzero(~is_judged)),
            seed=(*problem.seed, number),
            budget=replace(problem.budget, seconds=seconds),
        )
        weights = _fitted(half, start, hooks)
        places = np.flatnonzero(is_judged)
        if weights is None or not _predict(problem, weights, places, values, hooks):
            return None
    return values


def _fitted(half: FitProblem, start: InitialWeights | None, hooks: FitHooks) -> Weights | None:
    """Return the best weights of a fit, None unless it has come to an epoch at least."""
    result = fit(half, start, hooks)
    seen = sum(epoch.examples for epoch in result.curve)
    if result.stopped is not None or seen < len(half.train) - 1:  # a last batch of one is dropped
        log.warning("no cross-fit: %d rows were seen (%s)", seen, result.cause or result.stopped)
        return None
    weights = result.best_weights
    if weights is None or not all(np.isfinite(array).all() for array in weights.values()):
        log.warning("no cross-fit: its weights are not finite")
        return None
    return weights


def _predict(
    problem: FitProblem,
    weights: Weights,
    places: NDArray[np.int64],
    values: NDArray[np.float32],
    hooks: FitHooks,
) -> bool:
    """Fill in the probabilities of the rows at some places; return False if that was stopped."""
    module = build_module(problem.architecture, problem.normalization)
    load_weights(module, weights)
    module = module.to(problem.device)
    with cpu_threads(problem.threads):
        for first in range(0, len(places), BATCH_ROWS):
            if hooks.should_stop() is not None:
                return False
            batch = places[first : first + BATCH_ROWS]
            values[batch] = probabilities_of(module, problem.train.images[batch])
    return True
