from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from automl.domain.training import StopReason
from automl.training.checkpoint import Checkpoint
from automl.training.device import choose_device
from automl.training.initialization import initial_weights
from automl.training.precision import Precision
from automl.training.problem import Budget, FitHooks, InitialWeights
from automl.training.trainer import fit
from tests.trainings import (
    Outside,
    assert_same,
    problem,
)


@pytest.mark.parametrize("stop_before", [1, 4, 6, 11])
def test_a_resumed_training_equals_an_uninterrupted_one(stop_before: int) -> None:
    expected = fit(problem(), None, FitHooks())
    outside = Outside(stop_before)

    stopped = fit(problem(), None, outside.hooks)
    checkpoint = outside.saved[-1]
    torch.manual_seed(99)  # another process has other global generators
    resumed = fit(problem(), checkpoint, FitHooks())

    assert stopped.stopped is StopReason.SLICE
    assert (checkpoint.epoch, checkpoint.step) == divmod(stop_before, 4)
    assert_same(resumed, expected)


def test_a_training_that_is_resumed_at_every_step_equals_an_uninterrupted_one() -> None:
    expected = fit(problem(), None, FitHooks())
    start: Checkpoint | None = None

    attempts = 0
    while (result := fit(problem(), start, (outside := Outside(1)).hooks)).stopped is not None:
        start = outside.saved[-1]
        attempts += 1

    assert attempts == 11
    assert_same(result, expected)


def test_a_training_on_two_threads_that_is_resumed_at_every_step_equals_an_uninterrupted_one() -> (
    None
):
    task = replace(problem(train=280), threads=2, budget=Budget(2, batch_size=64, patience=0))
    expected = fit(task, None, FitHooks())

    start = None
    while (result := fit(task, start, (outside := Outside(1)).hooks)).stopped is not None:
        start = outside.saved[-1]

    assert_same(result, expected)


def test_a_resumed_training_of_a_pretrained_network_equals_an_uninterrupted_one() -> None:
    task = replace(problem(2), is_warm=True, frozen=0)
    start = InitialWeights(initial_weights(task.architecture, (3,)), fit_head=True)
    whole = Outside()
    expected = fit(task, start, whole.hooks)
    stopped = Outside(stop_before=whole.asked - 2)

    fit(task, start, stopped.hooks)

    assert (stopped.saved[-1].step, stopped.saved[-1].updates) == (2, 2)
    assert stopped.saved[-1].squares
    assert_same(fit(task, stopped.saved[-1], FitHooks()), expected)


def test_patience_ends_the_training_and_survives_a_resumption() -> None:
    genes = {**problem().hyperparameters, "learning_rate": 1e-9}
    task = replace(problem(epochs=20, patience=2, dropout=0.0), hyperparameters=genes)
    outside = Outside()

    result = fit(task, None, outside.hooks)
    again = fit(task, outside.saved[-1], FitHooks(should_stop=lambda: StopReason.SIGNAL))

    assert result.stopped is None
    assert result.best_epoch is not None
    assert result.epochs == result.best_epoch + 3
    assert_same(again, result)  # nothing is left to do, so nobody is asked


def test_a_training_stopped_before_its_first_step_saves_nothing() -> None:
    outside = Outside(stop_before=0, reason=StopReason.DEADLINE)

    result = fit(problem(), None, outside.hooks)

    assert result.stopped is StopReason.DEADLINE
    assert (result.best_weights, result.best_epoch, result.score, result.epochs) == (None,) * 3 + (
        0,
    )
    assert not outside.saved


@pytest.mark.parametrize(
    ("step_s", "save_s", "expected"),
    [
        (1.0, 0.0, [(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0)]),
        (1.0, 0.3, [(1, 0), (3, 0), (5, 0), (6, 0)]),  # 20 * 0.3 s is more than an epoch's 4 s
        (10.0, 100.0, [(1, 0), (2, 2), (4, 0), (5, 2), (6, 0)]),
    ],
)
def test_checkpoints_are_saved_at_the_end_and_often_where_that_is_cheap(
    step_s: float, save_s: float, expected: list[tuple[int, int]]
) -> None:
    outside = Outside(step_s=step_s, save_s=save_s)

    fit(problem(epochs=6), None, outside.hooks)

    assert [(saved.epoch, saved.step) for saved in outside.saved] == expected


def test_seconds_add_up_over_the_attempts() -> None:
    outside = Outside(stop_before=6, step_s=1.0)
    fit(problem(), None, outside.hooks)
    later = Outside(step_s=1.0, now_s=1000.0)

    result = fit(problem(), outside.saved[-1], later.hooks)

    assert result.seconds == pytest.approx(13.0)  # 12 steps, and the one that was refused
    assert sum(epoch.seconds for epoch in result.curve) == pytest.approx(13.0)


def test_bfloat16_learns_as_float32_does_and_resumes_exactly() -> None:
    task = replace(problem(6), precision=Precision.BFLOAT16)
    outside = Outside(stop_before=6)

    result = fit(task, None, FitHooks())
    fit(task, None, outside.hooks)

    assert_same(fit(task, outside.saved[-1], FitHooks()), result)
    exact = fit(problem(6), None, FitHooks())
    assert result.log_loss == pytest.approx(exact.log_loss, rel=0.2)
    assert result.log_loss != exact.log_loss


@pytest.mark.gpu
@pytest.mark.skipif(choose_device() != "cuda", reason="needs a CUDA device")
def test_a_resumed_training_on_cuda_is_close_to_an_uninterrupted_one() -> None:
    task = replace(problem(), device="cuda")
    expected = fit(task, None, FitHooks())
    outside = Outside(stop_before=6)

    fit(task, None, outside.hooks)
    resumed = fit(task, outside.saved[-1], FitHooks())

    assert resumed.log_loss == pytest.approx(expected.log_loss, rel=0.05)
