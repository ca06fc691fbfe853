"""The head that is fitted alone: a logistic regression in a dense layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from automl.morphism.seeds import seed_architectures
from automl.training.examples import Examples
from automl.training.head import HEAD_DECAY, features_of, fit_head, fit_network_head, head_rows
from automl.training.initialization import initial_weights
from automl.training.module import (
    Network,
    Normalization,
    build_module,
    extract_weights,
    load_weights,
)
from automl.training.rows import Batch, ResidentRows

ROWS, WIDTH, CLASSES = 200, 12, 4


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    """Features of very different scales, whose classes overlap; the last says nothing at all."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, ROWS)
    centres = rng.standard_normal((CLASSES, WIDTH))
    features = centres[labels] + 1.5 * rng.standard_normal((ROWS, WIDTH))
    features = 3 + features * 10.0 ** rng.uniform(-3, 3, WIDTH)
    features[:, -1] = 7.0
    return features.astype(np.float32), labels.astype(np.int64)


def probabilities(features: np.ndarray, layer: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    logits = features @ layer[0].T + layer[1]
    found: np.ndarray = torch.softmax(torch.from_numpy(logits), dim=1).numpy()
    return found


def test_the_head_is_the_logistic_regression_on_standardised_features(
    rows: tuple[np.ndarray, np.ndarray],
) -> None:
    features, labels = rows
    layer = fit_head(features, labels, CLASSES)
    assert layer is not None

    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
    other = LogisticRegression(C=1 / (HEAD_DECAY * ROWS), tol=1e-8, max_iter=1000)
    expected = other.fit(scaled, labels).predict_proba(scaled)
    np.testing.assert_allclose(probabilities(features, layer), expected, atol=2e-3)


def test_equal_rows_give_equal_heads(rows: tuple[np.ndarray, np.ndarray]) -> None:
    first, second = (fit_head(*rows, CLASSES) for _ in range(2))

    assert first is not None
    assert second is not None
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_class_without_rows_is_never_predicted(rows: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = rows

    layer = fit_head(features, labels, CLASSES + 1)

    assert layer is not None
    assert layer[0].shape == (CLASSES + 1, WIDTH)
    assert probabilities(features, layer)[:, CLASSES].max() < 0.05


def after(count: int) -> Callable[[], bool]:
    """Something that asks to stop when it has been asked so often."""
    asked = iter(range(1000))
    return lambda: next(asked) >= count


def test_it_stops_when_asked_to(rows: tuple[np.ndarray, np.ndarray]) -> None:
    assert fit_head(*rows, CLASSES, after(3)) is None


def batches(images: torch.Tensor, labels: torch.Tensor) -> Iterable[Batch]:
    """The rows in two batches."""
    rows = ResidentRows(Examples(images.numpy(), labels.numpy()), torch.device("cpu"))
    return rows.batches(np.arange(len(labels)), 256)


def network() -> tuple[Network, torch.Tensor, torch.Tensor]:
    """A fresh network, and images whose class is their brightness."""
    architecture = seed_architectures(8, CLASSES)[0]
    module = build_module(architecture, Normalization((128.0,) * 3, (64.0,) * 3))
    load_weights(module, initial_weights(architecture, (0,)))
    rng = np.random.default_rng(1)
    labels = rng.integers(0, CLASSES, 300)
    pixels = np.clip(60 * labels[:, None, None, None] + rng.normal(30, 10, (300, 8, 8, 3)), 0, 255)
    return module, torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(labels)


def test_a_network_gets_the_head_and_keeps_everything_else() -> None:
    module, images, labels = network()
    before = extract_weights(module)
    last = len(module.nodes) - 1

    assert fit_network_head(module, batches(images, labels)) is not None

    weights = extract_weights(module)
    changed = {key for key in before if not np.array_equal(before[key], weights[key])}
    assert changed == {f"{last}.weight", f"{last}.bias"}
    assert module.training
    with torch.no_grad():
        found = module.eval()(images.permute(0, 3, 1, 2)).argmax(dim=1)
    assert float((found == labels).float().mean()) > 0.95


def test_what_the_head_reads_is_computed_in_evaluation_mode() -> None:
    module, images, labels = network()

    found = features_of(module, batches(images, labels))

    assert found is not None
    module.eval()
    with torch.no_grad():
        logits = module(images.permute(0, 3, 1, 2))
        last = list(module.nodes.values())[-1]
        assert torch.equal(found[1], labels)
        torch.testing.assert_close(last(found[0]), logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 3, 6])
def test_a_network_that_is_stopped_stays_as_it_is(count: int) -> None:
    module, images, labels = network()
    before = extract_weights(module)

    assert fit_network_head(module, batches(images, labels), after(count)) is None

    assert all(np.array_equal(array, before[key]) for key, array in extract_weights(module).items())
    assert module.training


def test_of_very_many_rows_evenly_spaced_ones_are_read() -> None:
    few, many = head_rows(10), head_rows(100_000)

    assert few.tolist() == list(range(10))
    assert (many[0], many[-1], len(many)) == (0, 99_999, 4096)
    assert set(np.diff(many)) == {24, 25}
