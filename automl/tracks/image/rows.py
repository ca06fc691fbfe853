"""A snapshot's rows for training: in memory, or in a file where memory has no room for them."""

from __future__ import annotations

import logging
import tempfile

import numpy as np

from automl.data.splits import Part
from automl.tracks.image.snapshot import ImageSnapshot
from automl.training.capacity import machine_bytes
from automl.training.examples import Examples

_SHARE = 0.2  # of a process's part of the machine's memory for training rows, without margins

log = logging.getLogger(__name__)


def train_rows(snapshot: ImageSnapshot, processes: int) -> Examples:
    """Return the training rows; where they are too many for memory, their images are in a file.

    Args:
        snapshot: the snapshot.
        processes: how many train on this machine at the same time.

    Raises:
        DamagedDataError: a shard is not what was written.
    """
    size_bytes, most = snapshot.size_bytes(Part.TRAIN), most_bytes(processes)
    if size_bytes <= most:
        return Examples(*snapshot.tensors(Part.TRAIN))
    log.info(
        "the training rows take %d bytes, more than %d: they are streamed from a file in %s",
        size_bytes, most, tempfile.gettempdir(),
    )  # fmt: skip
    return Examples(*snapshot.mapped_tensors(Part.TRAIN))


def most_bytes(processes: int) -> int:
    """Return how many bytes of training rows a process may keep in memory."""
    return int(_SHARE * machine_bytes() / processes)


def joined(first: Examples, second: Examples) -> Examples:
    """Return the rows of both; in a file if the first ones are."""
    labels = np.concatenate([first.labels, second.labels])
    if not isinstance(first.images, np.memmap):
        return Examples(np.concatenate([first.images, second.images]), labels)
    with tempfile.TemporaryFile(prefix="automl-rows-") as file:
        shape = (len(labels), *first.images.shape[1:])
        images = np.memmap(file, np.uint8, "w+", shape=shape)
    images[: len(first)] = first.images
    images[len(first) :] = second.images
    return Examples(images, labels)
