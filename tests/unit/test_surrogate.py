from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from automl.domain.candidate import Candidate
from automl.domain.trial import Measurement, Outcome, Trial, TrialState
from automl.search.arrays import Vector
from automl.search.history import History
from automl.search.surrogate import kernel as kernel_module
from automl.search.surrogate.features import Distances
from automl.search.surrogate.kernel import Kernel
from automl.search.surrogate.surrogate import (
    MAX_FITTED,
    FittedSurrogate,
    Prediction,
    Surrogate,
    refit_point,
)
from automl.search.surrogate.targets import NormalScores
from tests.spaces import ELSEWHERE, Words, candidate, history_of, loss_of, measured, trial

SPACE = Words("abcD", 6, rates=(0.1, 0.3, 0.5, 0.7, 0.9))


def draws(count: int, seed: int = 0) -> list[Candidate]:
    return SPACE.draws(count, np.random.default_rng(seed))


def targets(trials: Sequence[Trial]) -> np.ndarray:
    losses = np.array([one.loss for one in trials], dtype=np.float64)
    return NormalScores.of(losses)(losses)


def fit(trials: Sequence[Trial]) -> FittedSurrogate:
    return Surrogate(SPACE).fit(history_of(trials))


def equal(first: Prediction, second: Prediction, tolerance: float = 1e-12) -> bool:
    return all(
        np.allclose(getattr(first, name), getattr(second, name), rtol=0, atol=tolerance)
        for name in ("mean", "std", "noise", "feasible")
    )


def test_what_was_observed_is_predicted_there() -> None:
    trials = measured(draws(40))

    fitted = fit(trials)
    prediction = fitted.predict(draws(40))

    prior = np.sqrt(fitted.kernel.variance)
    assert np.abs(prediction.mean - targets(trials)).max() < 0.3
    assert np.corrcoef(prediction.mean, targets(trials))[0, 1] > 0.99
    assert (prediction.std >= 0).all()
    assert (prediction.std < 0.5 * prior).all()


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 25))
def test_variances_lie_between_zero_and_the_priors(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    trials = [
        trial(number, one, float(rng.normal()), error=float(rng.uniform(0, 0.1)))
        for number, one in enumerate(SPACE.draws(count, rng))
    ]

    fitted = fit(trials)
    prediction = fitted.predict([*draws(count), *SPACE.draws(30, rng)])

    assert np.isfinite(prediction.mean).all()
    assert (prediction.std >= 0).all()
    assert (prediction.std <= np.sqrt(fitted.kernel.variance) * (1 + 1e-9)).all()


def test_noise_is_what_errors_amount_to_among_targets() -> None:
    new = draws(20, 1)
    losses = [0.001 * number for number in range(20)] + [float(number) for number in range(20)]

    exact = fit([trial(n, one, losses[n]) for n, one in enumerate(draws(40))])
    inexact = fit([trial(n, one, losses[n], error=0.01) for n, one in enumerate(draws(40))])

    assert exact.predict(new).noise == pytest.approx(np.full(20, exact.kernel.noise))
    assert (inexact.predict(new).noise > inexact.kernel.noise).all()


def test_it_ranks_what_it_has_not_seen() -> None:
    trials, new = measured(draws(60, 0)), draws(100, 1)

    prediction = fit(trials).predict(new)

    assert spearmanr(prediction.mean, [loss_of(one) for one in new]).statistic > 0.8


@pytest.mark.parametrize("loss", [0.5, -1e9, 1e9])
def test_one_observation_makes_modest_predictions(loss: float) -> None:
    fitted = fit([trial(0, candidate("ab"), loss)])

    prediction = fitted.predict([candidate("ab"), *draws(20)])

    assert np.abs(prediction.mean).max() < 0.1  # it is average: nothing else is known
    assert (prediction.std > 0).all()
    assert (prediction.std <= np.sqrt(fitted.kernel.variance)).all()
    assert fitted.incumbent == pytest.approx(0, abs=0.1)


def test_no_observation_is_dropped() -> None:
    twins = [candidate("ab", rate) for rate in (0.1, 0.1, 0.3, 0.5, 0.5)]
    trials = measured([*draws(20), *twins])

    fitted = fit(trials)

    assert fitted.posterior.factor.shape == (25, 25)
    assert fitted.table.size == 25
    assert set(fitted.means) == set(range(25))
    assert fitted.posterior.weights.all()


def test_every_observation_moves_the_predictions_near_it() -> None:
    trials = measured(draws(20))
    before = fit(trials).predict(draws(20)).mean
    for number, one in enumerate(draws(20)):
        away = -np.sign(before[number])  # from one end of the targets towards the other
        changed = trial(number, one, 100.0 * away)
        after = fit([changed if old.number == number else old for old in trials])

        moved = after.predict([one]).mean.item() - before[number]
        assert away * moved > 0.5


def numpy_state() -> list[int]:
    """Return the state of numpy's global generator."""
    state: np.ndarray = np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002
    return [int(word) for word in state]


def test_no_global_generator_is_touched() -> None:
    random.seed(8128)  # in no state that a fit may have set before
    np.random.seed(8128)  # noqa: NPY002
    python, numpy = random.getstate(), numpy_state()

    fit(measured(draws(15))).predict(draws(5, 1))

    assert random.getstate() == python
    assert numpy_state() == numpy


@pytest.mark.parametrize(("factor", "shift"), [(1, 100), (1, -3), (1024, 0), (1 / 8, 5)])
def test_the_scale_of_the_losses_does_not_matter(factor: float, shift: float) -> None:
    trials = measured(draws(20))
    changed = [trial(n, one, factor * loss_of(one) + shift) for n, one in enumerate(draws(20))]

    first, second = (fit(some).predict(draws(30, 1)) for some in (trials, changed))

    assert equal(first, second, 0)


def test_unfinished_trials_lower_the_variance_around_them_and_change_no_mean() -> None:
    trials, waiting = measured(draws(20)), draws(23, 1)[20:]
    pending = [trial(20 + n, one, outcome=None) for n, one in enumerate(waiting)]
    near = [one.model_copy(update={"hyperparameters": {"rate": 0.7}}) for one in waiting]

    alone, busy = fit(trials), fit([*trials, *pending])
    asked = [*waiting, *near, *draws(30, 2)]
    before, after = alone.predict(asked), busy.predict(asked)

    np.testing.assert_allclose(after.mean, before.mean, atol=1e-9)
    assert (after.std <= before.std + 1e-9).all()
    assert (after.std[:3] < 0.5 * before.std[:3]).all()
    assert (after.std[3:6] < before.std[3:6] - 0.01).all()
    assert busy.incumbent == alone.incumbent
    assert busy.means == alone.means


def story(seed: int, count: int = 24) -> list[Trial]:
    """Trials in the order of their ends: of two snapshots, failed, pruned, and two of a kind."""
    rng = np.random.default_rng(seed)
    found = []
    for number, one in enumerate(SPACE.draws(count, rng)):
        outcome = rng.choice(
            [Outcome.COMPLETED, Outcome.PRUNED, Outcome.FAILED, Outcome.OUT_OF_MEMORY],
            p=[0.6, 0.2, 0.1, 0.1],
        )
        has_loss = outcome in {Outcome.COMPLETED, Outcome.PRUNED}
        loss = loss_of(one) if has_loss else None
        snapshot = ELSEWHERE if number < count // 4 else "here"
        made = trial(number, one, loss, Outcome(outcome), snapshot, error=0.01)
        found.append(made)
    return found


def unfinished(one: Trial) -> Trial:
    return replace(one, state=TrialState.PROPOSED, outcome=None, measurement=Measurement())


@pytest.mark.parametrize("seed", range(3))
def test_a_surrogate_that_learns_on_predicts_as_a_new_one(seed: int) -> None:
    trials, asked = story(seed), draws(15, 99)
    warm = Surrogate(SPACE)
    for length in range(1, len(trials) + 1):
        known = trials[:length]
        pending = [unfinished(one) for one in trials[length : length + 2]]
        history = history_of([*known, *pending])
        if not any(one.loss is not None for one in known):
            continue

        warmly = warm.fit(history).predict(asked)
        fresh = Surrogate(SPACE).fit(history).predict(asked)

        assert equal(warmly, fresh)


def test_going_back_to_an_earlier_history_is_possible() -> None:
    trials, asked = story(7), draws(15, 99)
    warm = Surrogate(SPACE)
    warm.fit(history_of(trials))
    for length in (24, 12, 20, 3):
        found = warm.fit(history_of(trials[:length])).predict(asked)
        assert equal(found, fit(trials[:length]).predict(asked))


def test_a_history_that_ends_otherwise_is_learned_anew() -> None:
    trials, asked = measured(draws(25)), draws(15, 99)
    warm = Surrogate(SPACE)
    for known in (trials[:21], trials[:23], trials[:22], [*trials[:21], trials[24]], trials[:23]):
        assert refit_point(len(known)) == 21  # the hyperparameters stay
        assert equal(warm.fit(history_of(known)).predict(asked), fit(known).predict(asked))


def test_predictions_do_not_depend_on_what_was_asked_before() -> None:
    trials, asked = measured(draws(20)), draws(15, 99)
    warm = Surrogate(SPACE)
    warm.fit(history_of(trials[:10])).predict(draws(40, 5))

    fitted = warm.fit(history_of(trials))
    together = fitted.predict(asked)
    one_by_one = [fitted.predict([one]) for one in asked]

    assert equal(together, fit(trials).predict(asked))
    assert together.mean == pytest.approx([one.mean.item() for one in one_by_one], abs=1e-9)
    assert together.std == pytest.approx([one.std.item() for one in one_by_one], abs=1e-6)


def test_failures_lower_the_feasibility_around_them() -> None:
    fine = measured([one for one in draws(40) if "D" not in one.genotype])
    failed = [
        trial(100 + n, one, outcome=Outcome.OUT_OF_MEMORY)
        for n, one in enumerate(one for one in draws(40) if one.genotype.count("D") >= 2)
    ]
    fitted = fit([*fine, *failed])

    near = fitted.predict([candidate(word) for word in ("DDaD", "aDDc", "DbDD")]).feasible
    far = fitted.predict([candidate(word) for word in ("abba", "cabc", "bb")]).feasible

    assert len(failed) > 5
    assert near.max() < far.min()
    assert near.mean() < 0.4
    assert far.mean() > 0.65
    assert ((near >= 0) & (far <= 1)).all()


def test_without_failures_everything_is_feasible() -> None:
    pruned = trial(30, candidate("aaaa"), 2.0, Outcome.PRUNED)

    assert (fit([*measured(draws(10)), pruned]).predict(draws(20)).feasible == 1).all()


def test_failures_are_no_observations_of_a_loss() -> None:
    trials = measured(draws(12))
    failed = [trial(50 + n, one, None, Outcome.FAILED) for n, one in enumerate(draws(16)[12:])]

    first, second = fit(trials).predict(draws(9, 1)), fit([*trials, *failed]).predict(draws(9, 1))

    assert np.array_equal(first.mean, second.mean)
    assert np.array_equal(first.std, second.std)


def test_a_pruned_trial_is_a_lower_bound() -> None:
    candidates, bad = draws(20), candidate("aaaa")
    trials = measured([one for one in candidates if one != bad])
    middling = sorted(loss_of(one) for one in candidates)[8]

    pruned = fit([*trials, trial(50, bad, middling, Outcome.PRUNED)])
    exact = fit([*trials, trial(50, bad, middling)])

    assert pruned.predict([bad]).mean > exact.predict([bad]).mean + 0.2
    assert pruned.predict([bad]).std >= exact.predict([bad]).std


def test_what_a_pruned_trial_had_early_on_is_no_bound_of_its_end() -> None:
    candidates = draws(20)
    good = min(candidates, key=loss_of)
    trials = measured([one for one in candidates if one != good])

    def predicted(*further: Trial) -> float:
        return float(fit([*trials, *further]).predict([good]).mean[0])

    early = max(loss_of(one) for one in candidates) + 1
    pruned = predicted(trial(50, good, early, Outcome.PRUNED))

    assert pruned < predicted(trial(50, good, early)) - 0.3
    assert pruned == pytest.approx(predicted(trial(50, good, early + 5, Outcome.PRUNED)), abs=0.05)


def shifted(candidates: Sequence[Candidate], shift: float, snapshot: str) -> list[Trial]:
    return [
        trial(number, one, loss_of(one) + shift, snapshot=snapshot)
        for number, one in enumerate(candidates)
    ]


def held_out_error(history: History, new: Sequence[Candidate], losses: np.ndarray) -> float:
    prediction = Surrogate(SPACE).fit(history).predict(new)
    scored = [t.loss for t in (*history.elsewhere, *history.finished) if t.loss is not None]
    wanted = NormalScores.of(np.array(scored))(losses)
    return float(np.abs(prediction.mean - wanted).mean())


@pytest.mark.parametrize("seed", range(3))
def test_another_snapshot_informs_about_this_one(seed: int) -> None:
    candidates = draws(80, seed)
    old, few, new = candidates[:40], candidates[40:46], candidates[46:]
    losses = [loss_of(one) for one in new]
    here = measured(few, first=40)

    lone = fit(here).predict(new).mean
    informed = fit([*shifted(old, 0.5, ELSEWHERE), *here]).predict(new).mean

    assert spearmanr(informed, losses).statistic > spearmanr(lone, losses).statistic + 0.1
    assert spearmanr(informed, losses).statistic > 0.7


@pytest.mark.parametrize("seed", range(3))
def test_what_two_snapshots_differ_by_is_absorbed(seed: int) -> None:
    candidates = draws(80, seed)
    old, few, new = candidates[:30], candidates[30:42], candidates[42:]
    losses = np.array([loss_of(one) for one in new])
    here = measured(few, first=30)

    told = held_out_error(history_of([*shifted(old, 0.3, ELSEWHERE), *here]), new, losses)
    mixed = held_out_error(history_of([*shifted(old, 0.3, "here"), *here]), new, losses)

    assert told < 0.9 * mixed


def test_the_incumbent_is_of_this_snapshot_once_there_is_one() -> None:
    good, bad = shifted(draws(15), -5, ELSEWHERE), measured(draws(25)[15:], first=15)

    before, after = fit(good), fit([*good, *bad])

    assert before.means == {}
    assert set(after.means) == set(range(15, 25))
    assert after.incumbent == min(after.means.values())
    assert before.incumbent < after.incumbent


def test_trials_without_a_finite_loss_are_no_observations() -> None:
    trials = measured(draws(10))
    broken = [trial(20, candidate("cc"), np.nan), trial(21, candidate("bD"), np.inf)]

    assert equal(fit([*trials, *broken]).predict(draws(9, 1)), fit(trials).predict(draws(9, 1)))


def test_hyperparameters_are_refitted_ever_more_seldom() -> None:
    points = {refit_point(count) for count in range(1, 1001)}
    steps = np.diff(sorted(points))

    assert len(points) < 70
    assert (steps <= np.maximum(2, 0.11 * np.array(sorted(points))[:-1] + 1)).all()
    for count in range(1, 1001):
        assert count / 1.2 - 1 <= refit_point(count) <= count


def test_hyperparameters_stay_until_a_tenth_more_is_known() -> None:
    trials = measured(draws(24))

    kernels = [fit(trials[:length]).kernel for length in (21, 22, 23, 24)]

    assert kernels[0] == kernels[1] == kernels[2] != kernels[3]


def test_many_observations_are_all_taken_in_though_few_are_fitted() -> None:
    count = MAX_FITTED + 60
    sizes = []
    original = kernel_module.fit_kernel

    def recorded(distances: Distances, z: Vector, errors: Vector, extra: Vector) -> Kernel:
        sizes.append(len(z))
        return original(distances, z, errors, extra)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("automl.search.surrogate.surrogate.fit_kernel", recorded)
        fitted = fit(measured(draws(count)))

    assert sizes == [MAX_FITTED]
    assert fitted.table.size == count
    new = draws(50, 1)
    predicted = fitted.predict(new).mean
    assert spearmanr(predicted, [loss_of(one) for one in new]).statistic > 0.95
