"""Scores of predicted values, and their comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from automl.domain.objective import Objective
from automl.scoring.interval import Interval
from automl.scoring.promotion import Decision, decide_by_values
from automl.scoring.regression import regression_metrics
from automl.tracks.track import Outputs, Table, Truth


@dataclass(frozen=True, slots=True)
class ValueScores:
    """Metrics of values, and a paired bootstrap of one of them; see `automl.tracks.track.Scores`.

    Attributes:
        objective: names the metric that decides about promotions.
    """

    objective: Objective

    def metrics(self, outputs: Outputs, truth: Truth) -> Mapping[str, Interval]:
        """Return rmse, mae and r2 with 95 % intervals."""
        return regression_metrics(outputs.values, truth.values)

    def compare(
        self, challenger: Outputs, champion: Outputs, truth: Truth, min_improvement: float
    ) -> Decision:
        """Decide by the metric on the same draws of the rows."""
        return decide_by_values(
            challenger.values, champion.values, truth.values, self.objective, min_improvement
        )

    def tables(self, outputs: Outputs, truth: Truth) -> Sequence[Table]:
        """Return none: a table of values says nothing that the metrics do not."""
        return ()
