"""Budgets of image trainings: epochs, rows of a step, threads."""

from __future__ import annotations

from dataclasses import replace

from automl.domain.specification import SearchSection
from automl.morphism.architecture import Architecture
from automl.tracks.image.full_training import FULL_EPOCHS, STEP_ROWS
from automl.training.device import choose_device
from automl.training.problem import Budget
from automl.training.replicas import most_copies

FULL_BUDGET = Budget(epochs=FULL_EPOCHS, batch_size=STEP_ROWS, patience=8)
MOST_EPOCHS = 4 * FULL_BUDGET.epochs
_ENOUGH_EXAMPLES = 1_200_000  # seen by a training, with repetition
_SMALL_MACS = 16_000_000  # of one image


def budget_of(search: SearchSection, rows: int) -> Budget:
    """Return what a trial may spend.

    A search that ends after a number of trials gives each of them `FULL_BUDGET`. Where time
    decides, small data get more epochs, in which fresh weights go on learning, and as much more
    patience.

    Args:
        search: how it searches.
        rows: training rows.
    """
    if search.max_trials is not None:
        return FULL_BUDGET
    epochs = min(max(FULL_BUDGET.epochs, _ENOUGH_EXAMPLES // rows), MOST_EPOCHS)
    patience = FULL_BUDGET.patience * epochs // FULL_BUDGET.epochs
    return replace(FULL_BUDGET, epochs=epochs, patience=patience)


def useful_threads(architecture: Architecture, available: int) -> int:
    """Return how many of the available CPU threads a training of the architecture should use.

    Layers of small networks do not repay the synchronisation between threads: copies of them, each
    with a part of the batch, have one each.
    """
    if architecture.macs >= _SMALL_MACS:
        return available
    return most_copies(choose_device(), available, FULL_BUDGET.batch_size)
