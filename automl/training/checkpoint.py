"""Everything that a training needs to go on elsewhere, as bytes (docs/formats/checkpoint.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from automl.errors import DamagedDataError, NewerSchemaError

CHECKPOINT_SCHEMA = 1

_METADATA = "checkpoint"
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
            f"{group}/{key}": np.ascontiguousarray(array)
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
        document = {
            "schema": CHECKPOINT_SCHEMA,
            "sha256": _digest(state, tensors),
            "state": state,
        }
        return bytes(save_tensors(tensors, {_METADATA: json.dumps(document, sort_keys=True)}))

    @classmethod
    def from_bytes(cls, data: bytes) -> Checkpoint:
        """Return the checkpoint that `to_bytes` wrote.

        Raises:
            NewerSchemaError: a newer version wrote it.
            DamagedDataError: the bytes are not what was written.
        """
        try:
            document = _document(data)
            schema = int(document["schema"])
            if schema <= CHECKPOINT_SCHEMA:
                return cls._parse(document, load_tensors(data))
        except (ValueError, TypeError, KeyError, IndexError, SafetensorError) as error:
            raise DamagedDataError(
                f"The checkpoint of {len(data)} bytes is damaged: {error}.",
                "delete it; the training goes on from the one before",
            ) from error
        raise NewerSchemaError(
            f"The checkpoint has schema {schema}; this version reads up to {CHECKPOINT_SCHEMA}.",
            "upgrade the platform, or delete the checkpoint to train the trial anew",
        )

    @classmethod
    def _parse(cls, document: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Checkpoint:
        state = document["state"]
        if document["sha256"] != _digest(state, tensors):
            raise ValueError("its digest does not match")
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


def _document(data: bytes) -> Mapping[str, Any]:
    """Return our document from the header: 8 bytes of length, then JSON with `__metadata__`."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise ValueError("it is cut short")
    header = json.loads(data[8 : 8 + size])
    document = json.loads(header["__metadata__"][_METADATA])
    if not isinstance(document, dict):
        raise TypeError("its metadata is not an object")
    return document


def _digest(state: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of the state and of all arrays with their names, types and shapes."""
    digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
