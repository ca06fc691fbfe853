"""Objectives of searches. Metrics that are maximised change their sign here and nowhere else."""

from __future__ import annotations

from enum import StrEnum


class Objective(StrEnum):
    """The validation metric that the search optimises.

    A *score* is the metric as people read it; a *loss* is what the search minimises.
    """

    ACCURACY = "accuracy"
    LOG_LOSS = "log_loss"
    BALANCED_ACCURACY = "balanced_accuracy"
    MACRO_F1 = "macro_f1"
    ROC_AUC = "roc_auc"
    RMSE = "rmse"
    MAE = "mae"
    R2 = "r2"

    @property
    def is_for_classification(self) -> bool:
        """True if the metric compares labels, not values."""
        return self not in {Objective.RMSE, Objective.MAE, Objective.R2}

    @property
    def is_higher_better(self) -> bool:
        """True if of two scores the higher one is the better one."""
        return self not in {Objective.LOG_LOSS, Objective.RMSE, Objective.MAE}

    def loss(self, score: float) -> float:
        """Return what is minimised for a score: the better one has the lower loss."""
        return -score if self.is_higher_better else score

    def score(self, loss: float) -> float:
        """Return the score that has a loss."""
        return -loss if self.is_higher_better else loss
