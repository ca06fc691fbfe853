"""What the pretrained seed is worth and what it costs: `make bench-transfer`.

Accuracy on the test rows of a logistic regression on its frozen features, and how many images per
second its training takes. It prints both and writes them to `benchmarks/out/transfer.json`.
"""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from automl.morphism.pretrained import LITE0_PACKAGE, lite0, normalised_for
from automl.training.backbone import lite0_state
from automl.training.device import cpu_threads
from automl.training.head import fit_head
from automl.training.module import Network, Normalization, build_module, load_weights
from benchmarks.fits import features, normalization_of
from benchmarks.rows import load

OUT = Path(__file__).parent / "out" / "transfer.json"
DATASETS = (
    ("clothing", 32), ("clothing", 64), ("plant_seedlings", 32), ("plant_seedlings", 64),
    ("cifar10_small", 32),
)  # fmt: skip
_BATCH, _STEPS, _ROUNDS = 64, 2, 3


def network(size: int, classes: int, normalization: Normalization) -> Network:
    """Return the pretrained seed as a module."""
    state = lite0_state()
    if state is None:
        raise SystemExit(f"{LITE0_PACKAGE} is not installed: make install")
    pretrained = lite0(size, classes)
    module = build_module(pretrained.architecture, normalization)
    weights = normalised_for(pretrained.weights(state), normalization.mean, normalization.std)
    load_weights(module, weights)
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return] # torch's hints lack it


def head_accuracy(name: str, size: int) -> dict[str, object]:
    """Return the accuracy of a head on frozen features, and the seconds that both took."""
    dataset = load(name, OUT.parent / "rows")
    names = dataset.classes
    train, test = (part.examples(size, names) for part in (dataset.train, dataset.test))
    module = network(size, len(names), normalization_of(train.images))
    started_s = time.process_time()
    read = features(module, train)
    features_s = time.process_time() - started_s
    layer = fit_head(read, train.labels, len(names))
    assert layer is not None
    head_s = time.process_time() - started_s - features_s
    found = (features(module, test) @ layer[0].T + layer[1]).argmax(axis=1)
    return {
        "dataset": name, "size": size, "accuracy": float(np.mean(found == test.labels)),
        "rows": len(train), "test_rows": len(test), "features_s": features_s, "head_s": head_s,
    }  # fmt: skip


def training_speed(size: int, threads: int, precision: torch.dtype) -> dict[str, object]:
    """Return the images per second of training steps, the best of a few rounds."""
    module = network(size, 10, Normalization((120.0,) * 3, (60.0,) * 3))
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9, nesterov=True)
    images = torch.randint(0, 256, (_BATCH, size, size, 3), dtype=torch.uint8)
    labels = torch.arange(_BATCH) % 10
    best_s = float("inf")
    with cpu_threads(threads):
        for _ in range(_ROUNDS):
            started_s = time.perf_counter()
            for _ in range(_STEPS):
                with torch.autocast("cpu", precision, enabled=precision != torch.float32):
                    logits = module(images.permute(0, 3, 1, 2))
                loss = nn.functional.cross_entropy(logits.float(), labels)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
                optimizer.step()
            best_s = min(best_s, time.perf_counter() - started_s)
    return {
        "size": size, "threads": threads, "precision": str(precision),
        "images_per_s": _BATCH * _STEPS / best_s,
    }  # fmt: skip


def main() -> None:
    """Measure, print and write to `OUT`."""
    torch.manual_seed(0)
    found: dict[str, list[dict[str, object]]] = {"speed": [], "accuracy": []}
    for size, threads, precision in itertools.product(
        (32, 64), (1, 2), (torch.float32, torch.bfloat16)
    ):
        found["speed"].append(training_speed(size, threads, precision))
        print(found["speed"][-1], flush=True)
    with cpu_threads(1):
        for name, size in DATASETS:
            found["accuracy"].append(head_accuracy(name, size))
            print(found["accuracy"][-1], flush=True)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1) + "\n")
    print(f"wrote {OUT}")


if __name__ == "__main__":
    main()
