"""What the pretrained seed is worth and what it costs: `make bench-transfer`.

Accuracy on the test rows of a logistic regression on its frozen features, and how many images per
second its training takes. It prints both and writes them to `benchmarks/out/transfer.json`.
"""

from __future__ import annotations

import csv
import itertools
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import nn

from automl.morphism.pretrained import lite0, normalised_for
from automl.preprocessing.decode import decode_image
from automl.preprocessing.image import ImagePreprocessor, resize_graph
from automl.training.backbone import LITE0_PACKAGE, lite0_state
from automl.training.device import cpu_threads
from automl.training.examples import Examples
from automl.training.head import features_of, fit_head
from automl.training.module import Network, Normalization, build_module, load_weights
from automl.training.rows import ResidentRows
from tests.requirements import shared_dataset

OUT = Path(__file__).parent / "out" / "transfer.json"
DATASETS = (
    ("clothing", 32), ("clothing", 64), ("plant_seedlings", 32), ("plant_seedlings", 64),
    ("cifar10_small", 32),
)  # fmt: skip
_BATCH, _STEPS, _ROUNDS = 64, 2, 3


def rows(name: str, part: str, size: int) -> Examples:
    """Return a dataset's rows as the platform would prepare them, labels in alphabetical order.

    Args:
        name: of a shared dataset of photographs.
        part: train or test.
        size: pixels.
    """
    preprocess = ImagePreprocessor(resize_graph(size).SerializeToString(deterministic=True))
    images, labels = [], []
    for data, label in _files(shared_dataset(name), part):
        images.append(preprocess(decode_image(data)[None])[0])
        labels.append(label)
    return Examples(np.stack(images), np.unique(labels, return_inverse=True)[1].astype(np.int64))


def _files(place: Path, part: str) -> Iterator[tuple[bytes, str]]:
    if (archive := place / f"{place.name}.zip").exists():
        with zipfile.ZipFile(archive) as files:
            for name in sorted(files.namelist()):
                path = PurePosixPath(name)
                if path.suffix == ".jpg" and path.parts[0] == part:
                    yield files.read(name), path.parent.name
        return
    with (place / f"{part}.csv").open(newline="") as text:
        for row in csv.DictReader(text):
            yield (place / "images" / row["File Name"]).read_bytes(), row["Label"]


def network(size: int, classes: int, normalization: Normalization) -> Network:
    """Return the pretrained seed as a module."""
    state = lite0_state()
    if state is None:
        raise SystemExit(f"{LITE0_PACKAGE} is not installed: make install")
    pretrained = lite0(size, classes)
    module = build_module(pretrained.architecture, normalization)
    weights = normalised_for(pretrained.weights(state), normalization.mean, normalization.std)
    load_weights(module, weights)
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def head_accuracy(name: str, size: int) -> dict[str, object]:
    """Return the accuracy of a head on frozen features, and the seconds that both took."""
    train, test = rows(name, "train", size), rows(name, "test", size)
    pixels = train.images.reshape(-1, 3).astype(np.float64)
    normalization = Normalization(tuple(pixels.mean(axis=0)), tuple(pixels.std(axis=0)))
    classes = int(train.labels.max()) + 1
    module = network(size, classes, normalization)
    started_s = time.process_time()
    features = _features(module, train)
    features_s = time.process_time() - started_s
    layer = fit_head(features, train.labels, classes)
    assert layer is not None
    head_s = time.process_time() - started_s - features_s
    found = (_features(module, test) @ layer[0].T + layer[1]).argmax(axis=1)
    return {
        "dataset": name, "size": size, "accuracy": float(np.mean(found == test.labels)),
        "rows": len(train), "test_rows": len(test), "features_s": features_s, "head_s": head_s,
    }  # fmt: skip


def _features(module: Network, examples: Examples) -> np.ndarray:
    rows = ResidentRows(examples, torch.device("cpu"))
    found = features_of(module, rows.batches(np.arange(len(examples)), _BATCH, 0))
    assert found is not None
    return np.asarray(found[0].numpy())


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
                loss.backward()  # type: ignore[no-untyped-call]
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
