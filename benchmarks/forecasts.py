"""One-step-ahead predictions of a recorded study, by the surrogate and by simpler models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from automl.domain.candidate import Candidate
from automl.domain.study import Study
from automl.domain.trial import Trial
from automl.search.history import History
from automl.search.space import SearchSpace
from automl.search.surrogate.features import COSTS
from automl.search.surrogate.gaussian_process import condition
from automl.search.surrogate.kernel import fit_kernel
from automl.search.surrogate.surrogate import FittedSurrogate, Surrogate

FIRST = 6  # trials that the searcher proposes without asking the surrogate
HALF_WIDTH = 1.959964  # standard deviations on either side of a 95 % interval
SURROGATE, CONSTANT, PARAMETERS = "surrogate", "constant", "parameters"


@dataclass(frozen=True, slots=True)
class Forecast:
    """A normal distribution, and what came.

    Attributes:
        mean: of the distribution.
        std: its standard deviation, noise included.
        target: what came, on the same scale.
    """

    mean: float
    std: float
    target: float

    @property
    def log_likelihood(self) -> float:
        """Logarithm of the density at the target, in nats."""
        away = (self.target - self.mean) / self.std
        return -0.5 * away**2 - math.log(self.std) - 0.5 * math.log(2 * math.pi)

    @property
    def is_covered(self) -> bool:
        """Whether the target is in the central 95 % interval."""
        return abs(self.target - self.mean) <= HALF_WIDTH * self.std


def forecasts(study: Study, space: SearchSpace) -> Iterator[Mapping[str, Forecast]]:
    """Yield what each model predicts of the next loss, for each trial from the seventh on.

    All models see the trials that had ended before and predict on one scale: the surrogate's
    targets at that time.

    Args:
        study: with trials that were evaluated one after the other.
        space: which they are of.
    """
    surrogate, history = Surrogate(space), History(study.trials[0].snapshot)
    for trial in sorted(study.trials, key=lambda trial: trial.finished_in):
        if trial.loss is not None and len(history.parents) >= FIRST:
            yield _forecast(surrogate.fit(history), space, history, trial)
        history.add(trial)


def _forecast(
    fitted: FittedSurrogate, space: SearchSpace, history: History, trial: Trial
) -> Mapping[str, Forecast]:
    assert trial.loss is not None
    candidate = _candidate(trial)
    known = [past for past in history.finished if past.loss is not None]
    losses = np.array([past.loss for past in known])
    z = fitted.scores(losses)
    target = float(fitted.scores(np.array([trial.loss]))[0])
    prediction = fitted.predict([candidate])
    errors = np.array([past.measurement.error or 0.0 for past in known])
    variances = fitted.scores.variances(losses, errors)
    sizes = [math.log2(space.describe(_candidate(past)).costs["parameters"]) for past in known]
    size = math.log2(space.describe(candidate).costs["parameters"])
    mean, std = _by_size(np.array(sizes), size, z, variances)
    spread = math.sqrt(float(prediction.std[0]) ** 2 + float(prediction.noise[0]))
    return {
        SURROGATE: Forecast(float(prediction.mean[0]), spread, target),
        CONSTANT: Forecast(float(z.mean()), float(z.std(ddof=1)), target),
        PARAMETERS: Forecast(mean, std, target),
    }


def _by_size(
    sizes: np.ndarray, size: float, z: np.ndarray, variances: np.ndarray
) -> tuple[float, float]:
    """Return mean and standard deviation by a Gaussian process on the number of parameters."""
    among = {COSTS: (sizes[:, None] - sizes[None, :]) ** 2}
    kernel = fit_kernel(among, z, variances)
    posterior = condition(kernel(among), kernel.noises(variances), z)
    cross = kernel({COSTS: (sizes[:, None] - size) ** 2})
    mean, variance = posterior.predict(cross, np.array([kernel.variance]))
    noise = float(np.median(kernel.noises(variances)))
    return float(mean[0]), math.sqrt(float(variance[0]) + noise)


def _candidate(trial: Trial) -> Candidate:
    assert trial.candidate is not None
    return trial.candidate


@dataclass(frozen=True, slots=True)
class Calibration:
    """How good the forecasts of one model are.

    Attributes:
        count: of forecasts.
        coverage: share of targets in their 95 % intervals.
        log_likelihood: mean, in nats.
        error: root mean square of target minus mean.
    """

    count: int
    coverage: float
    log_likelihood: float
    error: float


def calibration(made: Sequence[Forecast]) -> Calibration:
    """Return how good forecasts of one model are; there is at least one."""

    def mean(value: Callable[[Forecast], float]) -> float:
        return sum(value(forecast) for forecast in made) / len(made)

    return Calibration(
        count=len(made),
        coverage=mean(lambda forecast: forecast.is_covered),
        log_likelihood=mean(lambda forecast: forecast.log_likelihood),
        error=math.sqrt(mean(lambda forecast: (forecast.target - forecast.mean) ** 2)),
    )
