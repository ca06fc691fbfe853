"""Training images on their way to the device: there from the start, or streamed while it works."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from automl.morphism.memory import RESIDENT_SHARE
from automl.training.examples import Examples
from automl.training.lines import Lines

_AHEAD = 3  # batches that are ready before they are needed


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows on the device, whose images are still among others.

    Attributes:
        lines: the images of these and perhaps other rows.
        places: where the rows are among them, int64 (B,).
        labels: of the rows, int64 (B,).
    """

    lines: Lines
    places: torch.Tensor
    labels: torch.Tensor

    @property
    def images(self) -> torch.Tensor:
        """The images of the rows, uint8 (B, S, S, C)."""
        return self.lines.images(self.places)


class Rows(Protocol):
    """The training rows, a batch at a time."""

    def batches(self, order: np.ndarray, batch_size: int) -> Generator[Batch]:
        """Yield rows in batches, on the device.

        Args:
            order: their numbers, int64 (m,).
            batch_size: rows of a batch; the last one may have fewer.
        """


class ResidentRows:
    """Rows that lie on the device.

    Args:
        examples: the rows.
        device: where they are needed.
        margin: of their images, see `Lines`.
    """

    def __init__(self, examples: Examples, device: torch.device, margin: int = 0) -> None:
        self._lines = Lines.of(as_tensor(examples.images).to(device), margin)
        self._labels = as_tensor(examples.labels).to(device)

    def batches(self, order: np.ndarray, batch_size: int) -> Generator[Batch]:
        """Yield the batches; see `Rows`."""
        rows = torch.from_numpy(order).to(self._labels.device)
        labels = self._labels[rows]
        for start in range(0, len(order), batch_size):
            part = slice(start, start + batch_size)
            yield Batch(self._lines, rows[part], labels[part])


_Gathered = tuple[torch.Tensor, torch.Tensor]  # images and labels


class StreamedRows:
    """Rows that are gathered on the host by a thread, a few batches ahead of their use.

    Args:
        examples: the rows; the images may be a memory-mapped file.
        device: where they are needed.
        margin: of their images, see `Lines`.
    """

    def __init__(self, examples: Examples, device: torch.device, margin: int = 0) -> None:
        self._examples, self._device, self._margin = examples, device, margin

    def batches(self, order: np.ndarray, batch_size: int) -> Generator[Batch]:
        """Yield the batches; see `Rows`.

        Raises:
            OSError: the images could not be read.
        """
        ready: queue.Queue[_Gathered | BaseException | None] = queue.Queue(_AHEAD)
        is_over = threading.Event()

        def put(item: _Gathered | BaseException | None) -> None:
            while not is_over.is_set():
                try:
                    ready.put(item, timeout=0.1)
                except queue.Full:
                    continue
                return

        def gather() -> None:
            try:
                for start in range(0, len(order), batch_size):
                    if is_over.is_set():
                        return
                    put(self._gather(order[start : start + batch_size]))
                put(None)
            except BaseException as error:  # noqa: BLE001 - raised again where the batch is needed
                put(error)

        thread = threading.Thread(target=gather, name="rows", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                images, labels = (part.to(self._device, non_blocking=True) for part in item)
                places = torch.arange(len(labels), device=self._device)
                yield Batch(Lines.of(images, self._margin), places, labels)
        finally:
            is_over.set()
            thread.join()

    def _gather(self, chosen: np.ndarray) -> _Gathered:
        images = torch.from_numpy(self._examples.images[chosen])
        labels = torch.from_numpy(self._examples.labels[chosen])
        if self._device.type == "cuda":  # copies from pinned memory do not wait
            return images.pin_memory(), labels.pin_memory()
        return images, labels


def rows_on(examples: Examples, device: torch.device, margin: int = 0) -> Rows:
    """Return the rows: on the device where they leave room for a network, else streamed.

    Images in a memory-mapped file are streamed on the CPU: they are there for want of memory.

    Args:
        examples: the rows.
        device: where they are needed.
        margin: of their images, see `Lines`.
    """
    if device.type == "cuda":
        free_bytes, _ = torch.cuda.mem_get_info(device)
        is_small = examples.images.nbytes <= RESIDENT_SHARE * free_bytes
    else:
        is_small = not isinstance(examples.images, np.memmap)
    kind = ResidentRows if is_small else StreamedRows
    return kind(examples, device, margin)


def as_tensor(values: np.ndarray) -> torch.Tensor:
    """Return an array as a tensor that shares its memory where it can."""
    return torch.from_numpy(np.require(values, requirements=["C", "W"]))
