from __future__ import annotations

from automl.domain.ranking import ranked, ranked_winners
from automl.domain.trial import Measurement, NetworkMeasurement, Outcome, Trial, TrialState


def trial(
    number: int, loss: float | None, cost: int = 1, outcome: Outcome = Outcome.COMPLETED
) -> Trial:
    measured = Measurement(loss=loss, network=NetworkMeasurement(macs=cost), weights="weights")
    state = TrialState.FINISHED
    return Trial(number, "run", 0, "s", state=state, outcome=outcome, measurement=measured)


def test_of_equal_losses_the_cheaper_trial_comes_first_then_the_earlier() -> None:
    trials = [trial(0, 0.5, 9), trial(1, 0.4, 2), trial(2, 0.4, 1), trial(3, None), trial(4, 0.4)]

    assert [one.number for one in ranked(trials)] == [2, 4, 1, 0]


def test_a_pruned_trial_is_ranked_and_cannot_win() -> None:
    trials = [trial(0, 0.5), trial(1, 0.4, outcome=Outcome.PRUNED)]

    assert [one.number for one in ranked(trials)] == [1, 0]
    assert [one.number for one in ranked_winners(trials)] == [0]
