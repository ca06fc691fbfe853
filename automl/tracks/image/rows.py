"""Rows of a snapshot for training: in memory, or in a file where memory has no room for them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl.data.splits import Part
from automl.tracks.image.snapshot import ImageSnapshot
from automl.training.capacity import machine_bytes
from automl.training.examples import Examples
from automl.training.symmetry import Symmetries, find_symmetries

_AT_ONCE = 1024  # rows that are copied
_SHARE = 0.2  # of a process's part of the machine's memory for training rows, without margins

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Rows of a snapshot by what they are for.

    Attributes:
        train: the rows that trials learn from.
        selection: the rows that score trials.
        calibration: the rows that only final fits are compared on.
        symmetries: the changes of images that keep their labels.
        digests: of selection and calibration rows, in their order.
        train_keys: reads the digests of training rows, which are many and seldom asked for.
    """

    train: Examples
    selection: Examples
    calibration: Examples
    symmetries: Symmetries
    digests: Mapping[Part, Sequence[str]]
    train_keys: Callable[[], Sequence[str]]

    def of(self, part: Part) -> Examples:
        """Return the selection or the calibration rows."""
        return {Part.SELECTION: self.selection, Part.CALIBRATION: self.calibration}[part]

    def keys(self, part: Part) -> Sequence[str]:
        """Return the digests of the selection or the calibration rows."""
        return self.digests[part]


def read_rows(snapshot: ImageSnapshot, processes: int) -> LabelledRows:
    """Return the rows of a snapshot.

    Args:
        snapshot: the snapshot.
        processes: how many train on this machine at the same time.

    Raises:
        DamagedDataError: a shard is not what was written.
    """
    train = train_rows(snapshot, processes)
    selection = Examples(*snapshot.tensors(Part.SELECTION))
    judging = (Part.SELECTION, Part.CALIBRATION)
    return LabelledRows(
        train=train,
        selection=selection,
        calibration=Examples(*snapshot.tensors(Part.CALIBRATION)),
        symmetries=find_symmetries(train, selection),
        digests={part: snapshot.digests(part) for part in judging},
        train_keys=partial(snapshot.digests, Part.TRAIN),
    )


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
    images = _mapped(len(labels), first)
    images[: len(first)] = first.images
    images[len(first) :] = second.images
    return Examples(images, labels)


def taken(rows: Examples, places: NDArray[np.int64]) -> Examples:
    """Return the rows at some places; in a file if all of them are."""
    if not isinstance(rows.images, np.memmap):
        return Examples(rows.images[places], rows.labels[places])
    images = _mapped(len(places), rows)
    for start in range(0, len(places), _AT_ONCE):
        images[start : start + _AT_ONCE] = rows.images[places[start : start + _AT_ONCE]]
    return Examples(images, rows.labels[places])


def _mapped(count: int, like: Examples) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Return room for so many images in a file, which has no name and vanishes with the array."""
    with tempfile.TemporaryFile(prefix="automl-rows-") as file:
        return np.memmap(file, np.uint8, "w+", shape=(count, *like.images.shape[1:]))
