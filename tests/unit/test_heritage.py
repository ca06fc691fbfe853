from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from automl.domain.candidate import Candidate
from automl.domain.trial import Measurement, Outcome, Trial, TrialState
from automl.search.heritage import Heritage
from automl.search.history import History
from automl.search.surrogate import Surrogate
from tests.spaces import Words


def candidate(text: str, parent: int | None) -> Candidate:
    return Candidate(genotype=text, hyperparameters={"rate": 0.5}, parent=parent)


def finished(number: int, one: Candidate, loss: float, **measured: int) -> Trial:
    return Trial(
        number=number,
        run="run",
        generation=0,
        snapshot="here",
        state=TrialState.FINISHED,
        candidate=one,
        outcome=Outcome.COMPLETED,
        measurement=Measurement(loss=loss, weights=f"weights-{number}", **measured),
        finished_in=number,
    )


def history_of(*trials: Trial) -> History:
    history = History("here")
    for trial in trials:
        history.add(trial)
    return history


def test_epochs_add_up_along_the_line_of_parents() -> None:
    heritage = Heritage(
        history_of(
            finished(0, candidate("a", None), 0.5, epochs=10, best_epoch=6),
            finished(1, candidate("b", 0), 0.4, epochs=4),
            finished(2, candidate("c", None), 0.3, epochs=5, best_epoch=4),
        )
    )

    assert heritage.inherited_epochs(candidate("d", None)) == 0
    assert heritage.inherited_epochs(candidate("d", 0)) == 7
    assert heritage.inherited_epochs(candidate("d", 1)) == 11
    assert heritage.inherited_epochs(candidate("d", 2)) == 5
    assert heritage.feature(candidate("d", 0)) == 3


def test_trials_of_another_snapshot_lend_weights_too() -> None:
    elsewhere = finished(0, candidate("a", None), 0.5, epochs=3)

    heritage = Heritage(history_of(replace(elsewhere, snapshot="there")))

    assert heritage.inherited_epochs(candidate("b", 0)) == 3


def test_the_surrogate_expects_more_of_weights_that_are_trained_longer() -> None:
    space, rng = Words("abcD", 6, rates=(0.5,)), np.random.default_rng(0)
    trials: list[Trial] = []
    for number, drawn in enumerate(space.draws(30, rng)):
        parent = None if number % 3 == 0 else number - 1
        one = drawn.model_copy(update={"parent": parent})
        loss = 3 - number % 3 + 0.01 * float(rng.standard_normal())
        trials.append(finished(number, one, loss, epochs=4))
    fitted = Surrogate(space).fit(history_of(*trials))
    new = space.draws(60, rng)[-1]

    fresh, heir, heir_of_heir = (
        float(fitted.predict([new.model_copy(update={"parent": parent})]).mean[0])
        for parent in (None, 27, 28)
    )

    assert fresh > heir > heir_of_heir


@pytest.mark.parametrize("parent", [None, 99])
def test_an_unknown_parent_lends_nothing(parent: int | None) -> None:
    assert Heritage(History("here")).feature(candidate("a", parent)) == 0
