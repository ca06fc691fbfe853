"""Everything that a training needs to go on elsewhere, as bytes (docs/formats/checkpoint.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from automl.errors import DamagedDataError, NewerSchemaError
from automl.training.tensor_file import NOT_READABLE, pack, unpack

CHECKPOINT_SCHEMA = 3

_KIND = "checkpoint"
_GROUPS = ("weights", "momentum", "squares", "averaged", "best_weights")


@dataclass(frozen=True, slots=True)
class EpochResult:
    """Measurements of one epoch.

    Attributes:
        epoch: its number, from 0.
        train_loss: mean training loss, with label smoothing (nats per example).
        selection_loss: log loss on the selection rows (nats per example), None without rows.
        selection_accuracy: share of the selection rows that are right, None without rows.
        learning_rate: of the last step.
        seconds: wall clock, over all attempts, evaluation included.
        examples: training examples seen; fewer than there are in a last epoch cut short.
        evaluation_seconds: the part of `seconds` that the evaluation took.
        resolution: height and width in pixels that the network saw; 0 in older files.
        progress: the share of the training that is done, 0 to 1; 0 in older files.
    """

    epoch: int
    train_loss: float
    selection_loss: float | None
    selection_accuracy: float | None
    learning_rate: float
    seconds: float
    examples: int = 0
    evaluation_seconds: float = 0.0
    resolution: int = 0
    progress: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON document."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> EpochResult:
        """Return the result that `to_json` wrote; TypeError if it is not one."""
        return cls(**document)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a training between two steps.

    Attributes:
        epoch: the epoch that is under way, from 0; all before it are complete.
        step: steps already made in it.
        loss_sum: sum of the training losses of those steps' examples.
        stale_epochs: complete epochs since the best one.
        seconds: wall clock spent so far, over all attempts.
        epochs: how many epochs the training has; 0, in older files, for the budget's.
        micro_batch: examples of a forward pass; 0, in older files, for the whole batch.
        resolution: height and width in pixels that the network sees in this epoch; 0 before its
            first step, and in older files.
        curve: the complete epochs.
        best_epoch: the epoch of `best_weights`, None before the first complete epoch.
        updates: steps that the optimiser has made; 0, in older files, for an unknown number.
        weights: arrays by `<node index>.<name>`, running statistics included.
        momentum: the optimiser's mean gradients by the same keys; empty before the first step.
        squares: its mean squared gradients; empty where it keeps none.
        averaged: the moving average of the weights; in older files the weights themselves.
        best_weights: the weights of the best epoch; empty before the first complete epoch.
    """

    epoch: int
    step: int
    loss_sum: float
    stale_epochs: int
    seconds: float
    epochs: int
    micro_batch: int
    resolution: int
    curve: tuple[EpochResult, ...]
    best_epoch: int | None
    updates: int
    weights: Mapping[str, np.ndarray]
    momentum: Mapping[str, np.ndarray]
    squares: Mapping[str, np.ndarray]
    averaged: Mapping[str, np.ndarray]
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
            "epochs": self.epochs,
            "micro_batch": self.micro_batch,
            "resolution": self.resolution,
            "curve": [entry.to_json() for entry in self.curve],
            "best_epoch": self.best_epoch,
            "updates": self.updates,
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
        groups["averaged"] = groups["averaged"] or groups["weights"]
        return cls(
            epoch=state["epoch"],
            step=state["step"],
            loss_sum=state["loss_sum"],
            stale_epochs=state["stale_epochs"],
            seconds=state["seconds"],
            epochs=state.get("epochs", 0),
            micro_batch=state.get("micro_batch", 0),
            resolution=state.get("resolution", 0),
            curve=tuple(EpochResult.from_json(entry) for entry in state["curve"]),
            best_epoch=state["best_epoch"],
            updates=state.get("updates", 0),
            **groups,
        )
