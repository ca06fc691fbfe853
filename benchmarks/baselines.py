"""Searchers to beat: local search, Optuna's TPE and a plain Gaussian process.

They know that the space is NAS-Bench-201's, which the platform's own searchers do not. Each is a
pure function of history and generator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import numpy.typing as npt
import optuna
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import ndtr

from automl.domain.candidate import Candidate
from automl.domain.trial import Trial
from automl.search.history import History
from automl.search.searcher import Suggestion
from automl.search.searchers.drawing import MAX_DRAWS
from automl.search.searchers.random import RandomSearcher
from benchmarks.nasbench201 import EDGE_NAMES, OPERATIONS, NasBench201Space, to_operations

Cells = Sequence[Candidate]
Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]

INITIAL_TRIALS = 10  # random ones, before a surrogate is used


class LocalSearch:
    """Climbs to a local optimum, then starts again at a random cell (arXiv:2005.02960).

    The first climb begins at the best of some random cells. It moves as soon as a neighbour is
    better; neighbours are tried in random order. The strategies of the trials tell where the
    present climb began: at the last random cells in a row.

    Args:
        space: the cells.
        initial: how many random cells come first.
    """

    def __init__(self, space: NasBench201Space, initial: int = 5) -> None:
        self._space = space
        self._random = RandomSearcher(space)
        self._initial = initial

    def propose(self, history: History, rng: np.random.Generator) -> Suggestion:
        """Return an unknown neighbour of the present climb's best cell, or a random cell."""
        trials = sorted([*history.finished, *history.pending.values()], key=lambda one: one.number)
        climb = [one for one in trials[self._start(trials) :] if one.loss is not None]
        if len(trials) < self._initial or not climb:
            return self._random.propose(history, rng)
        new = [
            neighbour
            for neighbour in self._space.neighbours(_candidate(min(climb, key=_loss)))
            if neighbour.identity not in history.identities
        ]
        if not new:
            return self._random.propose(history, rng)
        return Suggestion(new[int(rng.integers(len(new)))], "neighbour")

    def _start(self, trials: Sequence[Trial]) -> int:
        """Return the place where the last random trials in a row begin."""
        is_random = [one.strategy == self._random.name for one in trials]
        starts = [i for i, now in enumerate(is_random) if now and not (i and is_random[i - 1])]
        return starts[-1] if starts else 0


class TreeParzen:
    """Optuna's tree-structured Parzen estimator over six categorical parameters, one per edge.

    Its proposals of known cells are drawn again; when a hundred draws bring none that is new, the
    cell is a random one.

    Args:
        space: the cells.
    """

    def __init__(self, space: NasBench201Space) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._random = RandomSearcher(space)
        self._distributions: dict[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.CategoricalDistribution(OPERATIONS) for name in EDGE_NAMES
        }

    def propose(self, history: History, rng: np.random.Generator) -> Suggestion:
        """Return what Optuna asks for after being told the history."""
        study = self._study(history, seed=int(rng.integers(2**32)))
        for _ in range(MAX_DRAWS):
            asked = study.ask(self._distributions)
            candidate = self._space.candidate([asked.params[name] for name in EDGE_NAMES])
            if candidate.identity not in history.identities:
                return Suggestion(candidate, "tpe")
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
        return self._random.propose(history, rng)

    def _study(self, history: History, seed: int) -> optuna.Study:
        sampler = optuna.samplers.TPESampler(
            multivariate=True, n_startup_trials=INITIAL_TRIALS, seed=seed, constant_liar=True
        )
        study = optuna.create_study(sampler=sampler)
        for trial in [*history.finished, *history.pending.values()]:
            operations = to_operations(_candidate(trial).genotype)
            state = optuna.trial.TrialState
            study.add_trial(
                optuna.trial.create_trial(
                    state=state.RUNNING if trial.loss is None else state.COMPLETE,
                    params=dict(zip(EDGE_NAMES, operations, strict=True)),
                    distributions=self._distributions,
                    value=trial.loss,
                )
            )
        return study


class PlainGaussianProcess:
    """Expected improvement under a sum of one RBF kernel per kind of feature.

    What is scored: random cells, the neighbours of the best cells and theirs of the very best.
    Hyperparameters maximise the likelihood; pending trials count as observed at their mean.

    Args:
        space: the cells.
        features: which kernels there are: `edges` (one-hot), `neighbourhoods` (Weisfeiler-Lehman).
        least_noise: lower bound of the noise variance, where the losses have variance 1.
    """

    def __init__(
        self,
        space: NasBench201Space,
        features: Sequence[str] = ("edges", "neighbourhoods"),
        least_noise: float = 0.03,
    ) -> None:
        self._space = space
        self._random = RandomSearcher(space)
        kinds: dict[str, Callable[[Cells, Cells], Matrix]] = {
            "edges": unequal_edges,
            "neighbourhoods": Neighbourhoods(space).distances,
        }
        self._kinds = [kinds[kind] for kind in features]
        self._least_noise = least_noise

    def propose(self, history: History, rng: np.random.Generator) -> Suggestion:
        """Return the new cell with the largest expected improvement, or one of ten random ones."""
        measured = [trial for trial in history.finished if trial.loss is not None]
        if len(measured) < INITIAL_TRIALS:
            return self._random.propose(history, rng)
        pool = self._pool(history, sorted(measured, key=_loss), rng)
        known = [_candidate(trial) for trial in measured]
        pending = [_candidate(trial) for trial in history.pending.values()]
        losses = np.array([_loss(trial) for trial in measured])
        targets = (losses - losses.mean()) / max(losses.std(), 1e-9)
        regression = Regression.fit(self._distances(known, known), targets, self._least_noise)
        if pending:
            mean, _ = regression.predict(self._distances(known, pending))
            known, targets = known + pending, np.concatenate([targets, mean])
            regression = regression.refit(self._distances(known, known), targets)
        mean, deviation = regression.predict(self._distances(known, pool))
        gain = expected_improvement(mean, deviation, float(targets.min()))
        return Suggestion(pool[int(np.argmax(gain))], "ei")

    def _pool(
        self, history: History, best: Sequence[Trial], rng: np.random.Generator
    ) -> list[Candidate]:
        """Return the new cells among random ones and those around the best."""
        found = [self._space.sample((), rng) for _ in range(200)]
        near = [self._space.neighbours(_candidate(trial)) for trial in best[:10]]
        found += [cell for cells in near for cell in cells]
        found += [
            far for cells in near[:3] for cell in cells for far in self._space.neighbours(cell)
        ]
        new = {one.identity: one for one in found if one.identity not in history.identities}
        return list(new.values())

    def _distances(self, rows: Cells, columns: Cells) -> list[Matrix]:
        """Return the squared distances for each kind of feature, (rows, columns)."""
        return [distances(rows, columns) for distances in self._kinds]


def unequal_edges(rows: Cells, columns: Cells) -> Matrix:
    """Return the numbers of edges with different operations: half a squared one-hot distance."""
    first, second = (
        np.array([[OPERATIONS.index(o) for o in to_operations(c.genotype)] for c in cells])
        for cells in (rows, columns)
    )
    distances: Matrix = (first[:, None] != second).sum(axis=2).astype(float)
    return distances


class Neighbourhoods:
    """Counts of Weisfeiler-Lehman labels of up to two rounds (Shervashidze et al., JMLR 2011)."""

    def __init__(self, space: NasBench201Space) -> None:
        self._space = space
        self._columns: dict[Hashable, int] = {}
        self._known: dict[str, Counter[int]] = {}

    def distances(self, rows: Cells, columns: Cells) -> Matrix:
        """Return the squared Euclidean distances of the counts, (rows, columns)."""
        counts = [[self._count(cell) for cell in cells] for cells in (rows, columns)]
        first, second = (self._sparse(part) for part in counts)
        norms = [[sum(n * n for n in count.values()) for count in part] for part in counts]
        distances: Matrix = np.add.outer(*norms) - 2 * (first @ second.T).toarray()
        return distances

    def _sparse(self, counts: Sequence[Counter[int]]) -> csr_array[np.float64]:
        starts = np.cumsum([0, *map(len, counts)])
        values = np.array([n for count in counts for n in count.values()], dtype=float)
        columns = [column for count in counts for column in count]
        return csr_array((values, columns, starts), shape=(len(counts), len(self._columns)))

    def _count(self, cell: Candidate) -> Counter[int]:
        if cell.genotype not in self._known:
            graph = self._space.describe(cell).graph
            labels: list[Hashable] = list(graph.labels)
            seen = Counter(labels)
            for _ in range(2):
                labels = [
                    (label, *sorted((labels[i] for i in inputs), key=repr))
                    for label, inputs in zip(labels, graph.inputs, strict=True)
                ]
                seen.update(labels)
            column = self._columns.setdefault
            self._known[cell.genotype] = Counter(
                {column(label, len(self._columns)): n for label, n in seen.items()}
            )
        return self._known[cell.genotype]


class Regression:
    """A Gaussian process with mean 0, a sum of RBF kernels and equal noise everywhere.

    Args:
        theta: logarithms of the amplitudes, the lengths and the noise variance.
        distances: squared distances of the observations, one matrix (n, n) per kernel.
        targets: observed values, (n,).
    """

    def __init__(self, theta: Vector, distances: Sequence[Matrix], targets: Vector) -> None:
        self.theta = theta
        noise = np.exp(theta[-1]) * np.eye(len(targets))
        self._factor = cholesky(np.sum(_kernels(theta, distances), axis=0) + noise, lower=True)
        self._weights: Vector = cho_solve((self._factor, True), targets)
        self._targets = targets

    @classmethod
    def fit(cls, distances: Sequence[Matrix], targets: Vector, least_noise: float) -> Regression:
        """Return the regression with the largest likelihood, from one start."""
        kinds = len(distances)
        start = np.log([*[1 / kinds] * kinds, *[2.0] * kinds, max(0.1, least_noise)])
        ranges = [(0.01, 10.0)] * kinds + [(0.3, 30.0)] * kinds + [(least_noise, 1.0)]

        def deficit(theta: Vector) -> tuple[float, Vector]:
            return cls(theta, distances, targets)._deficit(distances)

        bounds = [(float(np.log(low)), float(np.log(high))) for low, high in ranges]
        found = minimize(deficit, start, jac=True, bounds=bounds, method="L-BFGS-B")
        return cls(found.x, distances, targets)

    def refit(self, distances: Sequence[Matrix], targets: Vector) -> Regression:
        """Return the regression of other observations with the same hyperparameters."""
        return Regression(self.theta, distances, targets)

    def predict(self, distances: Sequence[Matrix]) -> tuple[Vector, Vector]:
        """Return means and standard deviations, given distances (n, points)."""
        kinds = len(distances)
        cross = np.sum(_kernels(self.theta, distances), axis=0)
        half = solve_triangular(self._factor, cross, lower=True)
        variance = np.exp(self.theta[:kinds]).sum() - (half**2).sum(axis=0)
        return cross.T @ self._weights, np.sqrt(np.maximum(variance, 1e-12))

    def _deficit(self, distances: Sequence[Matrix]) -> tuple[float, Vector]:
        """Return the negative log-likelihood, but for a constant, and its gradient."""
        kinds = len(distances)
        inverse = cho_solve((self._factor, True), np.eye(len(self._targets)))
        slope = 0.5 * (inverse - np.outer(self._weights, self._weights))
        kernels = _kernels(self.theta, distances)
        lengths = np.exp(self.theta[kinds : 2 * kinds])
        gradient = [float((slope * kernel).sum()) for kernel in kernels]
        gradient += [
            float((slope * kernel * distance).sum() / length**2)
            for kernel, distance, length in zip(kernels, distances, lengths, strict=True)
        ]
        gradient.append(float(np.trace(slope) * np.exp(self.theta[-1])))
        value = 0.5 * self._targets @ self._weights + np.log(np.diag(self._factor)).sum()
        return float(value), np.array(gradient)


def expected_improvement(mean: Vector, deviation: Vector, best: float) -> Vector:
    """Return the expected amount below `best` (Jones et al., 1998, eq. 15)."""
    z = (best - mean) / deviation
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    gain: Vector = deviation * (z * ndtr(z) + density)
    return gain


def _kernels(theta: Vector, distances: Sequence[Matrix]) -> list[Matrix]:
    kinds = len(distances)
    return [
        np.exp(amplitude - 0.5 * distance * np.exp(-2 * length))
        for amplitude, length, distance in zip(
            theta[:kinds], theta[kinds : 2 * kinds], distances, strict=True
        )
    ]


def _candidate(trial: Trial) -> Candidate:
    assert trial.candidate is not None
    return trial.candidate


def _loss(trial: Trial) -> float:
    assert trial.loss is not None
    return trial.loss
