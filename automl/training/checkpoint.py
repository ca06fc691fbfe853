"""Everything that a training needs to go on elsewhere, as bytes (docs/formats/checkpoint.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from automl.errors import DamagedDataError, NewerSchemaError
from automl.training.tensor_file import NOT_READABLE, pack, unpack

CHECKPOINT_SCHEMA = 1

_KIND = "checkpoint"
_GROUPS = ("weights", "momentum", "best_weights")


@dataclass(frozen=True, slots=True)
class EpochResult:
    """What one epoch came to.

    Attributes:
        epoch: its number, from 0.
        train_loss: mean training loss, with label smoothing (nats per example).
        selection_loss: log loss on the selection rows (nats per example), None without rows.
        selection_accuracy: share of the selection rows that are right, None without rows.
        learning_rate: of the last step.
        seconds: wall clock, over all attempts, evaluation included.
    """

    epoch: int
    train_loss: float
    selection_loss: float | None
    selection_accuracy: float | None
    learning_rate: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON document."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> EpochResult:
        """Return the result that `to_json` wrote; KeyError or TypeError if it is not one."""
        return cls(**{field.name: document[field.name] for field in fields(cls)})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a training between two steps.

    Attributes:
        epoch: the epoch that is under way, from 0; all before it are complete.
        step: steps already made in it.
        loss_sum: sum of the training losses of those steps' examples.
        stale_epochs: complete epochs since the best one.
        seconds: wall clock spent so far, over all attempts.
        curve: the complete epochs.
        best_epoch: the epoch of `best_weights`, None before the first complete epoch.
        weights: arrays by `<node index>.<name>`, running statistics included.
        momentum: the optimiser's buffers by the same keys; empty before the first step.
        best_weights: the weights of the best epoch; empty before the first complete epoch.
    """

    epoch: int
    step: int
    loss_sum: float
    stale_epochs: int
    seconds: float
    curve: tuple[EpochResult, ...]
    best_epoch: int | None
    weights: Mapping[str, np.ndarray]
    momentum: Mapping[str, np.ndarray]
    best_weights: Mapping[str, np.ndarray]

    @property
    def best(self) -> EpochResult | None:
        """The best epoch, None before the first complete one."""
        return None if self.best_epoch is None else self.curve[self.best_epoch]

    def to_bytes(self) -> bytes:
        """Return the checkpoint in its stored format; equal checkpoints give equal bytes."""
        tensors = {
            f"{group}/{key}": array
            for group in _GROUPS
            for key, array in getattr(self, group).items()
        }
        state = {
            "epoch": self.epoch,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "stale_epochs": self.stale_epochs,
            "seconds": self.seconds,
            "curve": [entry.to_json() for entry in self.curve],
            "best_epoch": self.best_epoch,
        }
        return pack(_KIND, CHECKPOINT_SCHEMA, state, tensors)

    @classmethod
    def from_bytes(cls, data: bytes) -> Checkpoint:
        """Return the checkpoint that `to_bytes` wrote.

        Raises:
            NewerSchemaError: a newer version wrote it.
            DamagedDataError: the bytes are not what was written.
        """
        try:
            return cls._parse(*unpack(_KIND, CHECKPOINT_SCHEMA, data))
        except NOT_READABLE as error:
            raise DamagedDataError(
                f"The checkpoint of {len(data)} bytes is damaged: {error}.",
                "delete it; the training goes on from the one before",
            ) from error
        except NewerSchemaError as error:
            raise NewerSchemaError(
                error.message, "upgrade the platform, or delete the checkpoint to train anew"
            ) from error

    @classmethod
    def _parse(cls, state: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Checkpoint:
        groups: dict[str, dict[str, np.ndarray]] = {group: {} for group in _GROUPS}
        for name, array in tensors.items():
            group, key = name.split("/", 1)
            groups[group][key] = array
        return cls(
            epoch=state["epoch"],
            step=state["step"],
            loss_sum=state["loss_sum"],
            stale_epochs=state["stale_epochs"],
            seconds=state["seconds"],
            curve=tuple(EpochResult.from_json(entry) for entry in state["curve"]),
            best_epoch=state["best_epoch"],
            **groups,
        )
