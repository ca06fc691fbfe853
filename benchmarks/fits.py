"""The platform's own trainer, called as the benchmarks need it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from automl.morphism.architecture import Architecture
from automl.tracks.image.space import DEFAULT_HYPERPARAMETERS
from automl.training.examples import Examples
from automl.training.head import features_of
from automl.training.inference import BATCH_ROWS
from automl.training.module import Network, Normalization
from automl.training.precision import Precision
from automl.training.problem import Budget, FitProblem
from automl.training.rows import ResidentRows
from automl.training.symmetry import Symmetries


@dataclass(frozen=True, slots=True)
class Place:
    """Where a training runs.

    Attributes:
        device: "cpu" or "cuda".
        threads: CPU threads.
        precision: what it computes in.
    """

    device: str = "cpu"
    threads: int = 1
    precision: Precision = Precision.FLOAT32


def fit_problem(
    architecture: Architecture, train: Examples, budget: Budget, seed: Sequence[int], place: Place
) -> FitProblem:
    """Return a training of fresh weights with default genes, of images that bear every change.

    It has no selection rows: the last epoch counts.
    """
    return FitProblem(
        architecture=architecture,
        hyperparameters=DEFAULT_HYPERPARAMETERS,
        normalization=normalization_of(train.images),
        symmetries=Symmetries(mirror=True, colour=True),
        train=train,
        selection=None,
        budget=budget,
        seed=seed,
        device=place.device,
        threads=place.threads,
        precision=place.precision,
    )


def normalization_of(images: np.ndarray) -> Normalization:
    """Return mean and standard deviation of each channel of uint8 [n, S, S, C].

    A channel that has one value everywhere keeps its scale.
    """
    pixels = images.reshape(-1, images.shape[-1])
    std = pixels.std(axis=0, dtype=np.float64)
    return Normalization(
        tuple(pixels.mean(axis=0, dtype=np.float64).tolist()),
        tuple(np.where(std > 0, std, 1.0).tolist()),
    )


def features(module: Network, rows: Examples) -> np.ndarray:
    """Return what the last layer of a network on the CPU reads of each row, float32 [n, d]."""
    resident = ResidentRows(rows, torch.device("cpu"))
    found = features_of(module, resident.batches(np.arange(len(rows)), BATCH_ROWS))
    assert found is not None  # nothing stops it
    return np.asarray(found[0].numpy())
