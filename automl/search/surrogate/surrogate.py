"""The surrogate: a Gaussian process over candidates, learned from a history."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from automl.domain.candidate import Candidate
from automl.domain.trial import Outcome, Trial
from automl.search.arrays import Matrix, Vector
from automl.search.history import History
from automl.search.space import SearchSpace
from automl.search.surrogate.censoring import impute
from automl.search.surrogate.edit_distance import edit_distances
from automl.search.surrogate.features import NEIGHBOURHOODS, Encoder, Table, View, distances
from automl.search.surrogate.gaussian_process import Posterior, condition
from automl.search.surrogate.heritage import Heritage
from automl.search.surrogate.kernel import Kernel, fit_kernel
from automl.search.surrogate.targets import NormalScores

MAX_LANDMARKS = 16
MAX_FITTED = 192  # observations that hyperparameters are fitted to
REFIT_GROWTH = 1.1
_SNAPSHOT_VARIANCE = 0.25  # of the offset that another snapshot's targets share
_ELSEWHERE_NOISE = 0.05  # variance that each of them has in addition
_FAILURE_NOISE = 0.1
_FAILURES = frozenset({Outcome.OUT_OF_MEMORY, Outcome.DIVERGED, Outcome.FAILED, Outcome.LOST})


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Expectations of the surrogate about candidates.

    Attributes:
        mean: of their targets, the lower the better, (m,).
        std: standard deviation of their targets, noise aside, (m,).
        noise: variance that their measured targets have in addition, (m,).
        feasible: probability that they get a score, (m,).
    """

    mean: Vector
    std: Vector
    noise: Vector
    feasible: Vector


@dataclass(frozen=True, slots=True, eq=False)
class FittedSurrogate:
    """Surrogate that is fitted to one history.

    Attributes:
        encoder: gives candidates their features.
        view: where architectures are seen from.
        heritage: the training that is behind inherited weights.
        kernel: with its hyperparameters.
        table: the observations, then the unfinished candidates.
        posterior: over them.
        means: posterior mean of each trial of this snapshot that has a loss, by number.
        incumbent: the least posterior mean of what has a loss on this snapshot; of all if none has.
        failures: None if no trial has failed; else the finished trials and the posterior of
            whether they failed.
        failure_rate: share of the finished trials that failed.
        scores: what the targets are of losses.
        error: usual standard error of a loss.
    """

    encoder: Encoder
    view: View
    heritage: Heritage
    kernel: Kernel
    table: Table
    posterior: Posterior
    means: Mapping[int, float]
    incumbent: float
    failures: tuple[Table, Posterior] | None
    failure_rate: float
    scores: NormalScores
    error: float

    def predict(self, candidates: Sequence[Candidate]) -> Prediction:
        """Return what is expected of candidates, at least one."""
        rows = [self.encoder.encode(candidate) for candidate in candidates]
        heritage = [self.heritage.feature(candidate) for candidate in candidates]
        table = Table.of(rows, self.view, heritage)
        cross = self.kernel(distances(self.table, table))
        prior = np.full(len(candidates), self.kernel.variance)
        mean, variance = self.posterior.predict(cross, prior)
        errors = self.scores.variances(self.scores.inverse(mean), np.full(len(mean), self.error))
        noise, feasible = self.kernel.noises(errors), self._feasible(table, len(candidates))
        return Prediction(mean, np.sqrt(variance), noise, feasible)

    def _feasible(self, table: Table, count: int) -> Vector:
        if self.failures is None:
            return np.ones(count)
        known, posterior = self.failures
        near = self.kernel(distances(known, table)) / self.kernel.variance
        failing = self.failure_rate + near.T @ posterior.weights
        return np.asarray(np.clip(1 - failing, 0.0, 1.0), dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class _Observed:
    """Candidates in the order they were measured, and how far they are apart."""

    view: View
    identities: Sequence[str]
    table: Table
    apart: Mapping[str, Matrix]

    def extended(self, identities: Sequence[str], news: Table) -> _Observed:
        """Return these and further candidates; distances that are known are kept."""
        across, among = distances(self.table, news), distances(news, news)
        apart = {
            kind: np.block([[old, across[kind]], [across[kind].T, among[kind]]])
            for kind, old in self.apart.items()
        }
        return _Observed(self.view, identities, self.table + news, apart)


class Surrogate:
    """Learns from the histories of one study.

    What it keeps from one history to the next makes it quicker, never different.

    Args:
        space: describes the candidates.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._encoder = Encoder(space)
        self._model: tuple[object, View, Kernel] | None = None
        self._observed: _Observed | None = None
        self._heritage = Heritage(History(""))  # of the present history

    def fit(self, history: History) -> FittedSurrogate:
        """Return what follows from a history that holds at least one loss.

        Trials of other snapshots enter with a shared offset and more noise, pruned ones as lower
        bounds, unfinished ones at their posterior mean: it lowers the variance and no mean.
        """
        self._heritage = Heritage(history)
        scored = [trial for trial in (*history.elsewhere, *history.finished) if _has_loss(trial)]
        view, kernel = self._fitted(scored[: refit_point(len(scored))], history.snapshot)
        observed = self._observe(scored, view)
        K = kernel(observed.apart) + _offsets(scored, history.snapshot)  # noqa: N806
        scores, errors, extra = _targets(scored, history.snapshot)
        z, noise = scores(_bounds(scored)), extra + kernel.noises(errors)
        z, noise = impute(K, noise, z, np.array([t.outcome is Outcome.PRUNED for t in scored]))
        posterior = condition(K, noise, z)
        means = K @ posterior.weights
        table = observed.table
        if history.pending:
            pending = self._table(list(history.pending.values()), view)
            across = kernel(distances(table, pending))
            among = kernel(distances(pending, pending))
            table = table + pending
            z = np.concatenate([z, across.T @ posterior.weights])
            noise = np.concatenate([noise, np.full(pending.size, kernel.noise)])
            posterior = condition(np.block([[K, across], [across.T, among]]), noise, z)
        here = _of_snapshot(history.snapshot, scored, means)
        return FittedSurrogate(
            encoder=self._encoder,
            view=view,
            heritage=self._heritage,
            kernel=kernel,
            table=table,
            posterior=posterior,
            means=here,
            incumbent=min(here.values(), default=float(means.min())),
            failures=self._failures(history, view, kernel),
            failure_rate=_failure_rate(history),
            scores=scores,
            error=float(np.median([trial.measurement.error or 0.0 for trial in scored])),
        )

    def _fitted(self, first: Sequence[Trial], snapshot: str) -> tuple[View, Kernel]:
        """Return landmarks and hyperparameters, which follow from the first observations alone."""
        exact = [trial for trial in first if trial.outcome is not Outcome.PRUNED]
        first = exact or first  # a bound is no observation as long as there are others
        key = (snapshot, tuple((trial.number, trial.loss) for trial in first))
        if self._model is None or self._model[0] != key:
            view = self._view(first)
            chosen = _most_informative(first)
            table = self._table(chosen, view)
            scores, errors, extra = _targets(chosen, snapshot)
            z = scores(_losses(chosen))
            self._model = key, view, fit_kernel(distances(table, table), z, errors, extra)
        return self._model[1], self._model[2]

    def _view(self, trials: Sequence[Trial]) -> View:
        """Choose architectures far from each other as landmarks (Gonzalez, 1985)."""
        chosen = _most_informative(trials)
        apart = distances(*[self._table(chosen, View())] * 2)[NEIGHBOURHOODS[-1]]
        places, nearest = [0], apart[0].copy()
        while len(places) < min(MAX_LANDMARKS, len(chosen)) and nearest.max() > 0:
            places.append(int(nearest.argmax()))
            nearest = np.minimum(nearest, apart[places[-1]])
        landmarks = [self._encoder.encode(_candidate(chosen[place])).outline for place in places]
        between = edit_distances(landmarks, landmarks)
        positive = between[between > 0]
        return View(landmarks, float(np.median(positive)) if positive.size else 1.0)

    def _observe(self, scored: Sequence[Trial], view: View) -> _Observed:
        identities, known = [_candidate(trial).identity for trial in scored], self._observed
        if (
            known is None
            or known.view is not view
            or known.identities != identities[: known.table.size]
        ):
            table = self._table(scored, view)
            known = _Observed(view, identities, table, distances(table, table))
        elif known.table.size < len(identities):
            known = known.extended(identities, self._table(scored[known.table.size :], view))
        self._observed = known
        return known

    def _failures(
        self, history: History, view: View, kernel: Kernel
    ) -> tuple[Table, Posterior] | None:
        """Classify by regression on the labels (Rasmussen and Williams, 2006, sec. 6.5)."""
        ended = [t for t in history.finished if t.outcome in _FAILURES or _has_loss(t)]
        failed = np.array([trial.outcome in _FAILURES for trial in ended], dtype=np.float64)
        if not failed.any():
            return None
        table = self._table(ended, view)
        near = kernel(distances(table, table)) / kernel.variance
        noise = np.full(len(ended), _FAILURE_NOISE)
        return table, condition(near, noise, failed - _failure_rate(history))

    def _table(self, trials: Sequence[Trial], view: View) -> Table:
        candidates = [_candidate(trial) for trial in trials]
        rows = [self._encoder.encode(candidate) for candidate in candidates]
        return Table.of(rows, view, [self._heritage.feature(one) for one in candidates])


def refit_point(count: int) -> int:
    """Return how many of `count` observations the hyperparameters follow from."""
    point = 1
    while (following := max(point + 1, math.ceil(REFIT_GROWTH * point))) <= count:
        point = following
    return point


def _has_loss(trial: Trial) -> bool:
    return trial.loss is not None and math.isfinite(trial.loss)


def _candidate(trial: Trial) -> Candidate:
    assert trial.candidate is not None
    return trial.candidate


def _most_informative(trials: Sequence[Trial]) -> Sequence[Trial]:
    """Return at most `MAX_FITTED` trials: the best half, and others evenly over time."""
    if len(trials) <= MAX_FITTED:
        return trials
    order = np.argsort(_losses(trials), kind="stable")
    best, rest = order[: MAX_FITTED // 2], np.sort(order[MAX_FITTED // 2 :])
    spread = rest[np.linspace(0, len(rest) - 1, MAX_FITTED - len(best)).astype(np.intp)]
    return [trials[place] for place in np.sort(np.concatenate([best, spread]))]


def _targets(scored: Sequence[Trial], snapshot: str) -> tuple[NormalScores, Vector, Vector]:
    """Return the map of losses to targets, their squared standard errors, and extra variances."""
    losses = _losses(scored)
    errors = np.array([trial.measurement.error or 0.0 for trial in scored])
    elsewhere = np.array([trial.snapshot != snapshot for trial in scored])
    scores = NormalScores.of(losses)
    return scores, scores.variances(losses, errors), _ELSEWHERE_NOISE * elsewhere


def _offsets(scored: Sequence[Trial], snapshot: str) -> Matrix:
    """Return the covariance of the offsets that other snapshots have from this one."""
    names = np.array([trial.snapshot for trial in scored])
    same = (names[:, None] == names[None, :]) & (names != snapshot)[:, None]
    return np.asarray(_SNAPSHOT_VARIANCE * same, dtype=np.float64)


def _losses(scored: Sequence[Trial]) -> Vector:
    return np.array([trial.loss for trial in scored], dtype=np.float64)


def _of_snapshot(snapshot: str, scored: Sequence[Trial], means: Vector) -> dict[int, float]:
    """Return the means of a snapshot's trials by number."""
    return {
        trial.number: float(mean)
        for trial, mean in zip(scored, means, strict=True)
        if trial.snapshot == snapshot
    }


def _bounds(scored: Sequence[Trial]) -> Vector:
    """Return the losses, and of pruned trials what their whole trainings would hardly fall below.

    A trial that was stopped early would have come to less than what it had. Only that it would not
    become the best is known: so its bound is the least loss before it, if its own is worse.

    Args:
        scored: trials that have a loss, those of a snapshot in the order they ended.
    """
    least: dict[str, float] = {}
    bounds = []
    for trial in scored:
        assert trial.loss is not None
        known = least.get(trial.snapshot, trial.loss)
        bounds.append(min(known, trial.loss) if trial.outcome is Outcome.PRUNED else trial.loss)
        if trial.outcome is not Outcome.PRUNED:
            least[trial.snapshot] = min(known, trial.loss)
    return np.array(bounds, dtype=np.float64)


def _failure_rate(history: History) -> float:
    ended = [t for t in history.finished if t.outcome in _FAILURES or _has_loss(t)]
    return sum(trial.outcome in _FAILURES for trial in ended) / max(len(ended), 1)
