from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from automl.domain.training import StopReason
from automl.errors import ConfigError, DataError, OutOfMemoryError
from automl.morphism.architecture import Architecture, Node, Op
from automl.tracks.image.space import DEFAULT_HYPERPARAMETERS
from automl.training.device import is_out_of_memory
from automl.training.examples import Examples
from automl.training.inference import predict_probabilities
from automl.training.initialization import initial_weights
from automl.training.problem import Budget, FitHooks, InitialWeights
from automl.training.trainer import fit
from tests.trainings import (
    DIGITS,
    Outside,
    assert_same,
    network,
    problem,
    rows,
)


def test_a_small_network_learns_digits() -> None:
    task = replace(
        problem(epochs=30, patience=8),
        architecture=network((16, 32, 64)),
        hyperparameters=DEFAULT_HYPERPARAMETERS,
        train=rows(360, len(DIGITS)),
        budget=Budget(epochs=30, batch_size=64, patience=8),
    )

    result = fit(task, None, FitHooks())

    assert task.selection is not None
    assert result.best_weights is not None
    assert result.score is not None
    assert result.score >= 0.98
    probabilities = predict_probabilities(
        task.architecture, result.best_weights, task.normalization, task.selection.images, 1
    )
    right = probabilities.argmax(axis=1) == task.selection.labels
    assert np.mean(right) == pytest.approx(result.score)
    assert result.error == pytest.approx(np.sqrt(result.score * (1 - result.score) / 360))
    chosen = probabilities[np.arange(360), task.selection.labels]
    assert result.log_loss == pytest.approx(-np.log(chosen).mean(), rel=1e-4)


def test_rows_that_are_streamed_from_a_file_train_the_same(tmp_path: Path) -> None:
    task = problem(2)
    images = np.memmap(tmp_path / "rows", np.uint8, "w+", shape=task.train.images.shape)
    images[:] = task.train.images
    streamed = replace(task, train=Examples(images, task.train.labels))
    outside = Outside(stop_before=6)

    fit(streamed, None, outside.hooks)

    expected = fit(task, None, FitHooks())
    assert_same(fit(streamed, None, FitHooks()), expected)
    assert_same(fit(streamed, outside.saved[-1], FitHooks()), expected)


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    first, same = fit(problem(1), None, FitHooks()), fit(problem(1), None, FitHooks())
    other = fit(replace(problem(1), seed=(5, 8)), None, FitHooks())

    assert_same(first, same)
    assert first.best_weights is not None
    assert other.best_weights is not None
    assert not np.array_equal(first.best_weights["1.weight"], other.best_weights["1.weight"])


def test_training_leaves_the_global_generators_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)

    fit(problem(1), None, FitHooks())

    assert torch.equal(torch.rand(1), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_training_starts_from_the_weights_it_is_given() -> None:
    task = replace(problem(1), hyperparameters={**problem().hyperparameters, "learning_rate": 0.0})
    weights = initial_weights(task.architecture, (42,))

    result = fit(task, InitialWeights(weights), FitHooks())

    assert result.best_weights is not None
    np.testing.assert_array_equal(result.best_weights["1.weight"], weights["1.weight"])


def test_a_head_is_fitted_before_the_first_step() -> None:
    task = replace(
        problem(1, train=400, dropout=0.0),
        hyperparameters={**problem().hyperparameters, "learning_rate": 0.0},
    )
    trained = fit(problem(6, train=400, dropout=0.0), None, FitHooks()).best_weights
    assert trained is not None
    head = f"{len(task.architecture.nodes) - 1}.weight"
    weights = {**trained, head: np.zeros_like(trained[head])}
    outside = Outside(stop_before=0)

    plain = fit(task, InitialWeights(weights), FitHooks())
    fitted = fit(task, InitialWeights(weights, fit_head=True), FitHooks())
    stopped = fit(task, InitialWeights(weights, fit_head=True), outside.hooks)

    assert plain.score is not None
    assert fitted.score is not None
    assert plain.score < 0.3 < 0.6 < fitted.score
    assert fitted.curve[0].examples == 400
    assert fitted.curve[0].train_loss < 1
    assert (stopped.stopped, stopped.epochs, outside.saved) == (StopReason.SLICE, 0, [])


def test_norms_may_keep_their_statistics() -> None:
    start = fit(problem(2), None, FitHooks()).best_weights
    assert start is not None

    kept = fit(replace(problem(1), frozen=0), InitialWeights(start), FitHooks())
    moved = fit(problem(1), InitialWeights(start), FitHooks())

    assert kept.best_weights is not None
    assert moved.best_weights is not None
    for key in [key for key in start if "running_" in key]:
        np.testing.assert_array_equal(kept.best_weights[key], start[key])
        assert not np.array_equal(moved.best_weights[key], start[key])
    assert not np.array_equal(kept.best_weights["1.weight"], start["1.weight"])


def test_first_nodes_may_keep_their_weights() -> None:
    start = fit(problem(2), None, FitHooks()).best_weights
    assert start is not None
    frozen = replace(problem(2), frozen=4)
    outside = Outside(save_s=0.0)

    whole = fit(frozen, InitialWeights(start), outside.hooks)
    resumed = fit(frozen, outside.saved[0], FitHooks())

    assert whole.best_weights is not None
    assert resumed.best_weights is not None
    for key, array in whole.best_weights.items():
        is_kept = int(key.split(".")[0]) < 4 or "running_" in key
        assert np.array_equal(array, start[key]) is is_kept, key
        np.testing.assert_array_equal(resumed.best_weights[key], array)


def test_the_best_weights_are_those_of_the_lowest_selection_loss() -> None:
    outside = Outside(save_s=0.0)

    result = fit(problem(epochs=8), None, outside.hooks)

    losses = [epoch.selection_loss for epoch in result.curve]
    assert [epoch.progress for epoch in result.curve] == [(k + 1) / 8 for k in range(8)]
    assert result.curve == tuple(outside.epochs)
    assert result.best_epoch == int(np.argmin([loss or 0.0 for loss in losses]))
    assert result.log_loss == losses[result.best_epoch]
    after = next(saved for saved in outside.saved if saved.epoch == result.best_epoch + 1)
    assert result.best_weights is not None
    for key, array in result.best_weights.items():
        np.testing.assert_array_equal(after.averaged[key], array)


def test_without_selection_rows_the_last_weights_are_best() -> None:
    outside = Outside()

    result = fit(replace(problem(3, patience=1), selection=None), None, outside.hooks)

    assert (result.epochs, result.best_epoch) == (3, 2)
    assert (result.score, result.error, result.log_loss) == (None, None, None)
    assert result.best_weights is not None
    last = outside.saved[-1].averaged
    np.testing.assert_array_equal(result.best_weights["1.weight"], last["1.weight"])


def test_a_stopped_training_returns_the_best_of_its_complete_epochs() -> None:
    outside = Outside(stop_before=6, reason=StopReason.SIGNAL)

    result = fit(problem(), None, outside.hooks)

    assert result.stopped is StopReason.SIGNAL
    assert (result.epochs, result.best_epoch) == (1, 0)
    assert result.score == outside.epochs[0].selection_accuracy
    first, stopped = outside.saved
    assert ((first.epoch, first.step), (stopped.epoch, stopped.step)) == ((1, 0), (1, 2))


def test_a_last_batch_of_one_is_dropped() -> None:
    assert [problem(train=count).steps for count in (2, 32, 33, 34, 65)] == [1, 1, 1, 2, 2]
    fit(problem(1, train=33), None, FitHooks())
    assert problem(train=20).batch_size == 20


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    task = replace(problem(), hyperparameters={**problem().hyperparameters, "learning_rate": 1e30})

    result = fit(task, None, FitHooks())

    assert result.stopped is StopReason.DIVERGED
    assert re.match(
        r"The training loss is (nan|inf) in epoch 0 at learning_rate 1e\+30", result.cause
    )
    assert (result.best_weights, result.score, result.epochs) == (None, None, 0)


def test_a_training_that_diverges_keeps_its_best_finite_weights() -> None:
    outside = Outside(stop_before=4)
    fit(problem(), None, outside.hooks)
    good = outside.saved[-1]
    broken = {key: np.full_like(array, np.nan) for key, array in good.weights.items()}

    result = fit(problem(), replace(good, weights=broken), FitHooks())

    assert result.stopped is StopReason.DIVERGED
    assert result.best_epoch == 0
    assert result.score == good.curve[0].selection_accuracy
    assert result.best_weights is not None
    for key, array in result.best_weights.items():
        np.testing.assert_array_equal(array, good.best_weights[key])


def test_a_deadline_within_the_first_epoch_leaves_evaluated_weights() -> None:
    result = fit(problem(), None, Outside(stop_before=3, reason=StopReason.DEADLINE).hooks)

    assert result.stopped is StopReason.DEADLINE
    assert result.best_weights is not None
    assert result.score is not None
    assert [epoch.examples for epoch in result.curve] == [96]


def test_a_training_sized_to_its_time_ends_with_it_and_its_learning_rate_comes_down() -> None:
    outside = Outside(step_s=1.0)
    task = replace(problem(epochs=50), budget=Budget(50, 32, 0, seconds=21.0))

    result = fit(task, None, outside.hooks)

    assert result.stopped is None
    assert [epoch.examples for epoch in result.curve] == [100] * 5 + [32]  # 21 steps of a second
    assert 20.0 <= result.seconds <= 22.0
    assert result.curve[-1].learning_rate < 0.05 * result.curve[1].learning_rate
    assert [epoch.progress for epoch in result.curve] == pytest.approx(
        [4 / 21, 8 / 21, 12 / 21, 16 / 21, 20 / 21, 1], abs=0.06
    )


def test_enough_time_changes_nothing() -> None:
    task = replace(problem(), budget=Budget(3, 32, 0, seconds=1e6))

    assert_same(fit(task, None, FitHooks()), fit(problem(), None, FitHooks()))


def test_the_outside_ends_a_training_after_an_epoch() -> None:
    outside = Outside()
    hooks = replace(outside.hooks, on_epoch=lambda epoch: StopReason.PRUNED)

    result = fit(problem(), None, hooks)

    assert result.stopped is StopReason.PRUNED
    assert result.epochs == 1
    assert result.score is not None


def test_the_outside_plans_anew_after_the_first_epoch() -> None:
    outside = Outside(stop_before=9)
    hooks = replace(outside.hooks, replan=lambda first: 5)

    fit(problem(epochs=3), None, hooks)
    resumed = fit(problem(epochs=3), outside.saved[-1], FitHooks())

    assert outside.saved[-1].epochs == 5
    assert resumed.epochs == 5
    assert_same(resumed, fit(problem(epochs=3), None, FitHooks(replan=lambda first: 5)))


def test_fresh_weights_begin_on_smaller_images_and_are_judged_on_whole_ones() -> None:
    images = np.repeat(np.repeat(DIGITS.images[:300], 6, axis=1), 6, axis=2)
    large = Examples(images, DIGITS.labels[:300])
    task = replace(
        problem(),
        architecture=network(size=48),
        train=Examples(large.images[100:], large.labels[100:]),
        selection=Examples(large.images[:100], large.labels[:100]),
        budget=Budget(6, 32, 0),
    )
    outside = Outside(stop_before=9)

    result = fit(task, None, FitHooks())
    stopped = fit(task, None, Outside(stop_before=9, reason=StopReason.DEADLINE).hooks)
    fit(task, None, outside.hooks)
    warm = fit(replace(task, is_warm=True), None, FitHooks())

    assert [epoch.resolution for epoch in result.curve] == [24, 24, 48, 48, 48, 48]
    assert {epoch.resolution for epoch in warm.curve} == {48}
    assert result.best_epoch is not None
    assert result.best_epoch >= 2
    assert_same(fit(task, outside.saved[-1], FitHooks()), result)
    assert task.selection is not None
    assert stopped.best_weights is not None
    probabilities = predict_probabilities(
        task.architecture, stopped.best_weights, task.normalization, task.selection.images, 1
    )
    assert np.mean(probabilities.argmax(axis=1) == task.selection.labels) == stopped.score


def test_a_network_too_large_for_the_memory_is_an_error() -> None:
    nodes = (*network((8,)).nodes[:-1], Node(Op.DENSE, (4,), {"units": 2**44}))
    task = replace(problem(), architecture=Architecture(8, 3, nodes))

    with pytest.raises(OutOfMemoryError, match="cpu lacks memory for 8 px"):
        fit(task, None, FitHooks())


def test_a_failed_allocation_of_torch_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8)

    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shapes differ"))


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: Budget(0, 32, 0), ConfigError, "epochs=0"),
        (lambda: Budget(1, 1, 0), ConfigError, "batch_size=1"),
        (lambda: problem(train=1), DataError, "There are 1 training rows"),
        (lambda: replace(problem(), hyperparameters={}), ConfigError, "lack augmentation"),
    ],
)
def test_a_problem_that_cannot_be_trained_is_refused(
    wrong: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        wrong()
