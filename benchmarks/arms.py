"""What `accuracy` compares: each arm learns a dataset's rows and predicts its test rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from automl.domain.specification import Strategy
from automl.domain.training import StopReason
from automl.morphism.architecture import Architecture
from automl.morphism.pretrained import LITE0_PACKAGE, lite0
from automl.tracks.image.space import NetworkMorphismSpace
from automl.training.backbone import lite0_state
from automl.training.device import cpu_threads
from automl.training.examples import Examples
from automl.training.inference import predict_probabilities
from automl.training.module import Network, Normalization, build_module, load_weights
from automl.training.precision import choose_precision
from automl.training.problem import Budget as TrainingBudget
from automl.training.problem import FitHooks, FitProblem
from automl.training.symmetry import find_symmetries
from automl.training.trainer import fit
from benchmarks.arm_networks import Airbench, SmallResNet
from benchmarks.arm_training import Budget, Recipe, predict, train_for
from benchmarks.fits import Place, features, fit_problem
from benchmarks.platform_arm import run_platform
from benchmarks.rows import Dataset

PLATFORM = "platform"
PHOTOGRAPHS = frozenset({"cifar10_small", "plant_seedlings", "clothing"})
_BATCH_SIZE = 64
_PROBED_SHARE = 0.02  # of the time, for each number of threads
_AS_IT_IS = Normalization((0.0,) * 3, (1.0,) * 3)


class ArmUnavailableError(Exception):
    """The arm cannot run on this dataset or with this version; the message says why."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The same for all arms of a run.

    Attributes:
        search_s: seconds of a search.
        final_fit_s: seconds of the final fit; learners that do not search have both.
        threads: CPU threads.
        seed: of everything random.
        flip_tests: whether a recipe may predict from an image and its mirror image.
    """

    search_s: float
    final_fit_s: float
    threads: int
    seed: int
    flip_tests: bool = True

    @property
    def budget(self) -> Budget:
        """What a learner that does not search may spend."""
        return Budget(self.search_s + self.final_fit_s, self.threads, self.seed)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an arm came to.

    Attributes:
        hits: which test rows are right, bool [n].
        facts: what else is worth recording, for JSON.
    """

    hits: np.ndarray
    facts: Mapping[str, Any]


Arm = Callable[[Dataset, Terms, Path], Answer]


class _MakeRecipe(Protocol):
    def __call__(self, train: Examples, classes: int, *, flips: bool, seed: int) -> Recipe: ...


def _recipe(make: _MakeRecipe) -> Arm:
    """Return the arm that trains a recipe."""

    def arm(dataset: Dataset, terms: Terms, _folder: Path) -> Answer:
        train, test = dataset.examples()
        recipe = make(train, len(dataset.classes), flips=dataset.flips, seed=terms.seed)
        trained = train_for(recipe, train.labels, terms.budget)
        mirror = recipe.flips_tests and terms.flip_tests
        predicted = predict(recipe.module, test.images, terms.threads, mirror=mirror)
        return Answer(
            predicted == test.labels,
            {
                "epochs": round(trained.epochs, 2), "steps": trained.steps,
                "train_seconds": round(trained.seconds, 1), "precision": trained.precision,
                "flip_tests": mirror,
            },
        )  # fmt: skip

    return arm


def _default_seed(dataset: Dataset, terms: Terms, _folder: Path) -> Answer:
    """Train the first seed that has no weights yet with the platform's trainer."""
    started_s = time.monotonic()
    budget = terms.budget
    train, test = dataset.examples()
    problem = _seed_problem(dataset, train, terms)
    choices = [replace(problem, threads=count) for count in sorted({1, terms.threads})]
    problem = max(choices, key=lambda one: _steps_per_second(one, _PROBED_SHARE * budget.seconds))
    left_s = budget.seconds - (time.monotonic() - started_s)
    problem = replace(problem, budget=replace(problem.budget, seconds=left_s))
    result = fit(problem, None, FitHooks())
    train_seconds = time.monotonic() - started_s
    if result.best_weights is None:
        raise RuntimeError(f"The default seed has no weights on {dataset.name}: {result.cause}.")
    probabilities = predict_probabilities(
        problem.architecture,
        result.best_weights,
        problem.normalization,
        test.images,
        terms.threads,
    )
    return Answer(
        probabilities.argmax(axis=1) == test.labels,
        {
            "epochs": result.epochs, "threads": problem.threads, "precision": problem.precision,
            "train_seconds": round(train_seconds, 1),
        },
    )  # fmt: skip


def _seed_problem(dataset: Dataset, train: Examples, terms: Terms) -> FitProblem:
    """Return the training of the first seed; a fifth of the rows tells what images bear."""
    seed = NetworkMorphismSpace(dataset.size, len(dataset.classes)).seeds()[0]
    architecture = Architecture.from_genotype(seed.genotype)
    place = Place(threads=terms.threads, precision=choose_precision("cpu", architecture))
    budget = TrainingBudget(terms.budget.most_epochs, _BATCH_SIZE, patience=0)
    is_asked = np.random.default_rng(terms.seed).random(len(train)) < 0.2
    asked, known = (
        Examples(train.images[part], train.labels[part]) for part in (is_asked, ~is_asked)
    )
    return replace(
        fit_problem(architecture, train, budget, (terms.seed,), place),
        hyperparameters=seed.hyperparameters,
        symmetries=find_symmetries(known, asked),
    )


def _steps_per_second(problem: FitProblem, limit_s: float) -> float:
    """Return how many steps the trainer makes, the first one aside; it stops after a while."""
    moments: list[float] = []

    def stop() -> StopReason | None:
        moments.append(time.monotonic())
        is_enough = len(moments) > 2 and moments[-1] - moments[0] >= limit_s
        return StopReason.SLICE if is_enough else None

    fit(problem, None, FitHooks(should_stop=stop))
    return (len(moments) - 2) / (moments[-1] - moments[1])


def _platform(strategy: Strategy) -> Arm:
    def arm(dataset: Dataset, terms: Terms, folder: Path) -> Answer:
        hits, facts = run_platform(
            dataset, folder, strategy, (terms.search_s, terms.final_fit_s), terms.seed
        )
        return Answer(hits, facts)

    return arm


def _frozen_features(dataset: Dataset, terms: Terms, _folder: Path) -> Answer:
    """Fit a logistic regression to the features of a network that was trained on other images."""
    if dataset.name not in PHOTOGRAPHS:
        raise ArmUnavailableError("its images are no photographs")
    train, test = (_enlarged(rows) for rows in dataset.examples())
    module = _pretrained(train.images.shape[1])
    started_s = time.monotonic()
    with cpu_threads(terms.threads):
        known, asked = (features(module, rows) for rows in (train, test))
    hits, strength = _logistic_regression((known, train.labels), (asked, test.labels), terms.seed)
    seconds = round(time.monotonic() - started_s, 1)
    return Answer(hits, {"train_seconds": seconds, "inverse_penalty": strength})


def _enlarged(rows: Examples) -> Examples:
    """Return the images twofold as large: features of small ones are poor."""
    return Examples(rows.images.repeat(2, axis=1).repeat(2, axis=2), rows.labels)


def _pretrained(size: int) -> Network:
    """Return EfficientNet-Lite0 for uint8 images of a size."""
    state = lite0_state()
    if state is None:
        raise ArmUnavailableError(f"{LITE0_PACKAGE} is not installed")
    network = lite0(size, classes=2)
    module = build_module(network.architecture, _AS_IT_IS)
    load_weights(module, network.weights(state))
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return] # torch's hints lack it


def _logistic_regression(
    train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], seed: int
) -> tuple[np.ndarray, float]:
    """Return which test rows are right, and the inverse penalty, chosen on a fifth of the rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def fitted(x: np.ndarray, y: np.ndarray, strength: float) -> Any:  # sklearn is untyped
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))
        return pipeline.fit(x, y)

    (x, y), (x_test, y_test) = train, test
    x_fit, x_held, y_fit, y_held = train_test_split(
        x, y, test_size=0.2, random_state=seed, stratify=y
    )
    strengths = (1e-3, 1e-2, 1e-1)
    scores = [fitted(x_fit, y_fit, strength).score(x_held, y_held) for strength in strengths]
    best = strengths[int(np.argmax(scores))]
    return np.asarray(fitted(x, y, best).predict(x_test) == y_test), best


ARMS: Mapping[str, Arm] = {
    PLATFORM: _platform(Strategy.BAYESIAN),
    "random-search": _platform(Strategy.RANDOM),
    "default-seed": _default_seed,
    "small-resnet": _recipe(SmallResNet),
    "airbench": _recipe(Airbench),
    "frozen-features": _frozen_features,
}
