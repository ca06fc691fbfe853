from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from automl.domain.candidate import Candidate
from automl.domain.trial import Trial
from automl.search.history import History
from automl.search.surrogate.heritage import Heritage
from automl.search.surrogate.surrogate import Surrogate
from tests.spaces import Words, candidate, history_of, trial


def child(word: str, parent: int | None) -> Candidate:
    return candidate(word).model_copy(update={"parent": parent})


def trained(number: int, one: Candidate, loss: float, **measured: int) -> Trial:
    finished = trial(number, one, loss)
    return replace(finished, measurement=finished.measurement.model_copy(update=measured))


def test_epochs_add_up_along_the_line_of_parents() -> None:
    heritage = Heritage(
        history_of(
            [
                trained(0, child("a", None), 0.5, epochs=10, best_epoch=6),
                trained(1, child("b", 0), 0.4, epochs=4),
                trained(2, child("c", None), 0.3, epochs=5, best_epoch=4),
            ]
        )
    )

    assert heritage.inherited_epochs(child("d", None)) == 0
    assert heritage.inherited_epochs(child("d", 0)) == 7
    assert heritage.inherited_epochs(child("d", 1)) == 11
    assert heritage.inherited_epochs(child("d", 2)) == 5
    assert heritage.feature(child("d", 0)) == 3


def test_trials_of_another_snapshot_lend_weights_too() -> None:
    elsewhere = trained(0, child("a", None), 0.5, epochs=3)

    heritage = Heritage(history_of([replace(elsewhere, snapshot="there")]))

    assert heritage.inherited_epochs(child("b", 0)) == 3


def test_the_surrogate_expects_more_of_weights_that_are_trained_longer() -> None:
    space, rng = Words("abcD", 6, rates=(0.5,)), np.random.default_rng(0)
    trials: list[Trial] = []
    for number, drawn in enumerate(space.draws(30, rng)):
        parent = None if number % 3 == 0 else number - 1
        one = drawn.model_copy(update={"parent": parent})
        loss = 3 - number % 3 + 0.01 * float(rng.standard_normal())
        trials.append(trained(number, one, loss, epochs=4))
    fitted = Surrogate(space).fit(history_of(trials))
    new = space.draws(60, rng)[-1]

    fresh, heir, heir_of_heir = (
        float(fitted.predict([new.model_copy(update={"parent": parent})]).mean[0])
        for parent in (None, 27, 28)
    )

    assert fresh > heir > heir_of_heir


@pytest.mark.parametrize("parent", [None, 99])
def test_an_unknown_parent_lends_nothing(parent: int | None) -> None:
    assert Heritage(History("here")).feature(child("a", parent)) == 0
