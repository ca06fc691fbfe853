from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from automl.errors import ConfigError, DataError, DivergedError, OutOfMemoryError
from automl.morphism.architecture import Architecture, Node, Op
from automl.training.augmentation import Augmentation
from automl.training.checkpoint import Checkpoint
from automl.training.device import choose_device, is_out_of_memory
from automl.training.inference import predict_probabilities
from automl.training.module import initial_weights
from automl.training.schedule import learning_rate
from automl.training.trainer import (
    DEFAULT_HYPERPARAMETERS,
    EpochResult,
    Examples,
    FitHooks,
    FitProblem,
    FitResult,
    InitialWeights,
    Normalization,
    Rung,
    StopReason,
    fit,
)


def network(widths: Sequence[int] = (8, 16, 16), dropout: float = 0.0) -> Architecture:
    nodes = [Node(Op.INPUT)]

    def add(op: Op, **attributes: float) -> None:
        nodes.append(Node(op, (len(nodes) - 1,), attributes))

    for block, width in enumerate(widths):
        if block:
            add(Op.MAX_POOL, kernel=2, stride=2)
        add(Op.CONV, channels=width, kernel=3, stride=1, groups=1, bias=0)
        add(Op.BATCH_NORM)
        add(Op.RELU)
    add(Op.GLOBAL_POOL)
    if dropout:
        add(Op.DROPOUT, rate=dropout)
    add(Op.DENSE, units=10)
    return Architecture(8, 3, tuple(nodes)).canonical()[0]


def digits() -> Examples:
    data = load_digits()
    pixels = (data.images * (255 / 16)).round().astype(np.uint8)
    images = np.repeat(pixels[..., None], 3, axis=3)
    order = np.random.default_rng(0).permutation(len(images))
    return Examples(images[order], data.target.astype(np.int64)[order])


DIGITS = digits()


def rows(start: int, stop: int) -> Examples:
    return Examples(DIGITS.images[start:stop], DIGITS.labels[start:stop])


def problem(
    epochs: int = 3, patience: int = 0, train: int = 100, dropout: float = 0.25
) -> FitProblem:
    return FitProblem(
        architecture=network(dropout=dropout),
        hyperparameters={**DEFAULT_HYPERPARAMETERS, "augmentation": 1.0, "flip": 1.0},
        normalization=Normalization((77.0,) * 3, (96.0,) * 3),
        train=rows(360, 360 + train),
        selection=rows(0, 360),
        rung=Rung(epochs=epochs, batch_size=32, patience=patience),
        seed=(5, 7),
        device="cpu",
        threads=1,
    )


@dataclass
class Outside:
    """Hooks that stop before a step, record, and tell a time that they decide."""

    stop_before: int | None = None
    reason: StopReason = StopReason.SLICE
    saved: list[Checkpoint] = field(default_factory=list)
    epochs: list[EpochResult] = field(default_factory=list)
    asked: int = 0
    now_s: float = 0.0
    step_s: float = 0.0
    save_s: float = 0.0

    def should_stop(self) -> StopReason | None:
        self.asked += 1
        self.now_s += self.step_s
        return self.reason if self.asked - 1 == self.stop_before else None

    def save(self, checkpoint: Checkpoint) -> None:
        self.now_s += self.save_s
        self.saved.append(Checkpoint.from_bytes(checkpoint.to_bytes()))

    @property
    def hooks(self) -> FitHooks:
        return FitHooks(self.should_stop, self.epochs.append, self.save, lambda: self.now_s)


def assert_same(found: FitResult, expected: FitResult) -> None:
    assert found.best_weights is not None
    assert expected.best_weights is not None
    assert found.best_weights.keys() == expected.best_weights.keys()
    for key, array in expected.best_weights.items():
        np.testing.assert_array_equal(found.best_weights[key], array, err_msg=key)
    without_time = [
        [replace(epoch, seconds=0) for epoch in result.curve] for result in (found, expected)
    ]
    assert without_time[0] == without_time[1]
    assert (found.best_epoch, found.score, found.log_loss, found.stopped) == (
        expected.best_epoch,
        expected.score,
        expected.log_loss,
        expected.stopped,
    )


def test_a_small_network_learns_digits() -> None:
    task = replace(
        problem(epochs=30, patience=8),
        architecture=network((16, 32, 64)),
        hyperparameters=DEFAULT_HYPERPARAMETERS,
        train=rows(360, len(DIGITS)),
        rung=Rung(epochs=30, batch_size=64, patience=8),
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


def test_a_resumed_training_on_two_threads_equals_an_uninterrupted_one() -> None:
    task = replace(problem(1), threads=2)
    outside = Outside(stop_before=2)

    fit(task, None, outside.hooks)

    assert_same(fit(task, outside.saved[-1], FitHooks()), fit(task, None, FitHooks()))


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


def test_the_best_weights_are_those_of_the_lowest_selection_loss() -> None:
    outside = Outside(save_s=0.0)

    result = fit(problem(epochs=8), None, outside.hooks)

    losses = [epoch.selection_loss for epoch in result.curve]
    assert result.curve == tuple(outside.epochs)
    assert result.best_epoch == int(np.argmin([loss or 0.0 for loss in losses]))
    assert result.log_loss == losses[result.best_epoch]
    after = next(saved for saved in outside.saved if saved.epoch == result.best_epoch + 1)
    assert result.best_weights is not None
    for key, array in result.best_weights.items():
        np.testing.assert_array_equal(after.weights[key], array)


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


def test_without_selection_rows_the_last_weights_are_best() -> None:
    outside = Outside()

    result = fit(replace(problem(3, patience=1), selection=None), None, outside.hooks)

    assert (result.epochs, result.best_epoch) == (3, 2)
    assert (result.score, result.error, result.log_loss) == (None, None, None)
    assert result.best_weights is not None
    last = outside.saved[-1].weights
    np.testing.assert_array_equal(result.best_weights["1.weight"], last["1.weight"])


def test_a_training_stopped_before_its_first_step_saves_nothing() -> None:
    outside = Outside(stop_before=0, reason=StopReason.DEADLINE)

    result = fit(problem(), None, outside.hooks)

    assert result.stopped is StopReason.DEADLINE
    assert (result.best_weights, result.best_epoch, result.score, result.epochs) == (None,) * 3 + (
        0,
    )
    assert not outside.saved


def test_a_stopped_training_returns_the_best_of_its_complete_epochs() -> None:
    outside = Outside(stop_before=6, reason=StopReason.SIGNAL)

    result = fit(problem(), None, outside.hooks)

    assert result.stopped is StopReason.SIGNAL
    assert (result.epochs, result.best_epoch) == (1, 0)
    assert result.score == outside.epochs[0].selection_accuracy
    first, stopped = outside.saved
    assert ((first.epoch, first.step), (stopped.epoch, stopped.step)) == ((1, 0), (1, 2))


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


def test_a_last_batch_of_one_is_dropped() -> None:
    assert [problem(train=count).steps for count in (2, 32, 33, 34, 65)] == [1, 1, 1, 2, 2]
    fit(problem(1, train=33), None, FitHooks())
    assert problem(train=20).batch_size == 20


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    task = replace(problem(), hyperparameters={**problem().hyperparameters, "learning_rate": 1e30})

    with pytest.raises(
        DivergedError, match=r"loss is (nan|inf) in epoch 0 at learning_rate 1e\+30"
    ):
        fit(task, None, FitHooks())


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
        (lambda: Rung(0, 32, 0), ConfigError, "epochs=0"),
        (lambda: Rung(1, 1, 0), ConfigError, "batch_size=1"),
        (lambda: problem(train=1), DataError, "There are 1 training rows"),
        (lambda: replace(problem(), hyperparameters={}), ConfigError, "lack augmentation"),
    ],
)
def test_a_problem_that_cannot_be_trained_is_refused(
    wrong: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        wrong()


def test_the_learning_rate_rises_and_falls_once() -> None:
    rates = [learning_rate(step, 100, 0.5) for step in range(100)]
    peak = int(np.argmax(rates))

    assert max(rates) == pytest.approx(0.5)
    assert peak == 20
    assert np.all(np.diff(rates[: peak + 1]) > 0)
    assert np.all(np.diff(rates[peak:]) < 0)
    assert rates[-1] < 0.001
    assert learning_rate(0, 1, 0.5) > 0


def test_augmentation_moves_by_an_eighth_at_most_and_repeats_the_border() -> None:
    images = torch.arange(16 * 16, dtype=torch.uint8).reshape(1, 16, 16, 1).repeat(400, 1, 1, 1)
    padded = np.pad(images[0, :, :, 0].numpy(), 2, mode="edge")
    allowed = {padded[y : y + 16, x : x + 16].tobytes() for y in range(5) for x in range(5)}

    augment = Augmentation(1.0, flip=False, fill=(0.0,))
    changed = augment(images, np.random.default_rng(0))[..., 0].numpy()

    whole = {image.tobytes() for image in changed} & allowed
    assert whole == allowed  # 25 places, in the half of the images that keeps every square
    assert changed.shape == (400, 16, 16)


def test_augmentation_cuts_one_square_out_of_some_images() -> None:
    images = torch.full((400, 16, 16, 3), 9, dtype=torch.uint8)

    changed = Augmentation(0.5, flip=True, fill=(1.0, 2.0, 3.4))(images, np.random.default_rng(0))

    lost = (changed == torch.tensor([1, 2, 3], dtype=torch.uint8)).all(dim=3).sum(dim=(1, 2))
    assert set(lost.tolist()) == {0, 16}
    assert 0.15 < float((lost > 0).double().mean()) < 0.35


def test_augmentation_mirrors_only_where_it_is_asked_to() -> None:
    row = torch.tensor([1, 2, 3, 4], dtype=torch.uint8)
    images = row.reshape(1, 1, 4, 1).repeat(64, 4, 1, 1)

    def seen(strength: float, *, flip: bool) -> set[tuple[int, ...]]:
        augment = Augmentation(strength, flip=flip, fill=(0.0,))
        changed = augment(images, np.random.default_rng(0))[:, 0, :, 0]
        return {tuple(values) for values in changed.tolist() if 0 not in values}

    assert seen(0.1, flip=False) == {(1, 2, 3, 4)}
    assert seen(0.1, flip=True) == {(1, 2, 3, 4), (4, 3, 2, 1)}
    assert seen(0.0, flip=True) == {(1, 2, 3, 4)}


@pytest.mark.gpu
@pytest.mark.skipif(choose_device() != "cuda", reason="needs a CUDA device")
def test_a_resumed_training_on_cuda_is_close_to_an_uninterrupted_one() -> None:
    task = replace(problem(), device="cuda")
    expected = fit(task, None, FitHooks())
    outside = Outside(stop_before=6)

    fit(task, None, outside.hooks)
    resumed = fit(task, outside.saved[-1], FitHooks())

    assert resumed.log_loss == pytest.approx(expected.log_loss, rel=0.05)
