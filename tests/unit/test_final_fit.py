"""For how many epochs a final fit trains fresh weights."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from automl.domain.candidate import Candidate
from automl.domain.study import Study
from automl.domain.trial import Measurement, Outcome, Trial, TrialState
from automl.runs.training import lineage_of
from automl.tracks.image.refit import fresh_epochs
from automl.tracks.image.spending import FULL_BUDGET


def chain(best_epochs: Sequence[int | None]) -> Study:
    """Return a study of a seed and its descendants, each with the epoch of its best weights."""
    return Study(
        trials=tuple(
            Trial(
                number, "run", 0, "snapshot", state=TrialState.FINISHED, outcome=Outcome.COMPLETED,
                candidate=Candidate(
                    genotype=str(number), hyperparameters={}, parent=number - 1 if number else None
                ),
                measurement=Measurement(best_epoch=best, epochs=FULL_BUDGET.epochs),
            )
            for number, best in enumerate(best_epochs)
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("best_epochs", "epochs"),
    [
        ([FULL_BUDGET.epochs - 1], FULL_BUDGET.epochs),
        ([11], 12),  # a seed that was best early
        ([11, 3], 16),
        ([11, 3, 3, 3], 24),
        (
            [FULL_BUDGET.epochs - 1, 3, 3, 3, 3, 3],
            FULL_BUDGET.epochs + 20,
        ),  # short children of a long seed
        ([11] * 20, 4 * FULL_BUDGET.epochs),
        ([0, 0], 2),
        ([5 * FULL_BUDGET.epochs - 1, 3], 5 * FULL_BUDGET.epochs),  # a seed of a longer rung
        ([None], 1),
    ],
)
def test_fresh_weights_get_the_epochs_of_the_whole_lineage(
    best_epochs: list[int | None], epochs: int
) -> None:
    study = chain(best_epochs)

    assert fresh_epochs(lineage_of(study, study.trials[-1])) == epochs
