"""Training loops as people write them, to compare the trainer's speed with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn
from torch.utils.data import DataLoader, Dataset

from automl.morphism.architecture import Architecture
from automl.training.examples import Examples
from automl.training.initialization import initial_weights
from automl.training.module import (
    Network,
    Normalization,
    build_module,
    load_weights,
    place,
)
from automl.training.precision import autocast
from benchmarks.fits import Place, normalization_of

Change = Callable[[torch.Tensor], torch.Tensor]
_PADDING = 4


@dataclass(frozen=True, slots=True)
class Loop:
    """What a loop trains.

    Attributes:
        architecture: the network.
        rows: random images.
        place: device and threads.
        batch_size: examples per step, of which the rows are a multiple.
        epochs: passes over the rows.
    """

    architecture: Architecture
    rows: Examples
    place: Place
    batch_size: int
    epochs: int

    def module(self, normalization: Normalization) -> Network:
        """Return the network, as the trainer makes it."""
        module = build_module(self.architecture, normalization)
        load_weights(module, initial_weights(self.architecture, (0,)))
        place(module, self.place.device)
        return module

    @property
    def synchronize(self) -> Callable[[], None]:
        """What waits for the device."""
        return torch.cuda.synchronize if self.place.device == "cuda" else lambda: None


def bare_loop(loop: Loop, change: Change) -> list[float]:
    """Return the seconds of each epoch of the shortest loop: images in memory, nothing kept.

    Args:
        loop: what is trained.
        change: of uint8 images (B, C, S, S), on the device.
    """
    module = loop.module(normalization_of(loop.rows.images))
    images = torch.from_numpy(loop.rows.images).to(loop.place.device).permute(0, 3, 1, 2)
    labels = torch.from_numpy(loop.rows.labels).to(loop.place.device)
    optimizer = _optimizer(module)
    seconds = []
    for _ in range(loop.epochs):
        start_s = time.perf_counter()
        for rows in torch.split(torch.randperm(len(labels), device=images.device), loop.batch_size):
            _step(loop, module, optimizer, change(images[rows]), labels[rows])
        loop.synchronize()
        seconds.append(time.perf_counter() - start_s)
    return seconds


def unchanged(images: torch.Tensor) -> torch.Tensor:
    """Return the images."""
    return images


def flip_and_shift(images: torch.Tensor) -> torch.Tensor:
    """Return images of which half are mirrored, all shifted alike."""
    mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    images = torch.where(mirrored, images.flip(3), images)
    down, right = torch.randint(-_PADDING, _PADDING + 1, (2,)).tolist()
    return images.roll((down, right), (2, 3))


def loader_loop(loop: Loop, workers: int) -> list[float]:
    """Return the seconds of each epoch with a `DataLoader` that changes one image after another.

    Args:
        loop: what is trained.
        workers: processes of the loader; 0 for none.
    """
    module = loop.module(Normalization((0.0,) * 3, (1.0,) * 3))  # the dataset normalises
    optimizer = _optimizer(module)
    batches = DataLoader(
        _SingleImages(loop.rows),
        batch_size=loop.batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=loop.place.device == "cuda",
    )
    seconds = []
    for _ in range(loop.epochs):
        start_s = time.perf_counter()
        for images, labels in batches:
            shown = images.to(loop.place.device, memory_format=torch.channels_last)
            _step(loop, module, optimizer, shown, labels.to(loop.place.device))
        loop.synchronize()
        seconds.append(time.perf_counter() - start_s)
    return seconds


def _step(
    loop: Loop,
    module: Network,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
) -> None:
    with autocast(loop.place.device, loop.place.precision):
        logits = module(images)
    loss = nn.functional.cross_entropy(logits.float(), labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
    optimizer.step()


class _SingleImages(Dataset[tuple[torch.Tensor, int]]):
    """Padded, cropped, mirrored and normalised images, float32 (C, S, S), one at a time."""

    def __init__(self, rows: Examples) -> None:
        self._images = [Image.fromarray(image) for image in rows.images]
        self._labels = rows.labels.tolist()
        normalization = normalization_of(rows.images)
        self._mean = np.array(normalization.mean, np.float32)
        self._std = np.array(normalization.std, np.float32)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = self._images[index]
        size = image.width
        left, top, mirrored = torch.randint(0, 2 * _PADDING + 1, (3,)).tolist()
        image = ImageOps.expand(image, _PADDING).crop((left, top, left + size, top + size))
        if mirrored % 2:
            image = ImageOps.mirror(image)
        pixels = (np.asarray(image, np.float32) - self._mean) / self._std
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy()), self._labels[index]


def _optimizer(module: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(
        module.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
