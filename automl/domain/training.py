"""Points of learning curves, and reasons why trainings stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class StopReason(StrEnum):
    """Reason why a training ended before it was done."""

    DEADLINE = "deadline"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    PRUNED = "pruned"
    SLICE = "slice"
    SIGNAL = "signal"


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Measurements of a training after one of its rounds, which are epochs or folds.

    Attributes:
        epoch: the round, from 0.
        share: of the training that was done by then, above 0 to 1; 0 in older files.
        score: the objective on the rows that judge trials; None without any.
        error: the score's standard error; None where it is not known.
        log_loss: on those rows (nats per example); None where predictions are no probabilities.
        train_loss: mean training loss; None where none is computed.
        seconds: wall clock over all attempts.
        is_full: whether it was measured at the fidelity of the whole training, and not a lower one.
        details: further figures of the track, for people.
    """

    epoch: int
    share: float
    score: float | None
    error: float | None = None
    log_loss: float | None = None
    train_loss: float | None = None
    seconds: float = 0.0
    is_full: bool = True
    details: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON document."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> CurvePoint:
        """Return the point that `to_json` wrote, or a release before there were tracks.

        Raises:
            TypeError, KeyError: it is none.
        """
        if "share" in document:
            return cls(**document)
        details = ("learning_rate", "examples", "evaluation_seconds", "resolution")
        return cls(
            epoch=document["epoch"],
            share=document.get("progress", 0.0),
            score=document["selection_accuracy"],
            log_loss=document["selection_loss"],
            train_loss=document["train_loss"],
            seconds=document["seconds"],
            details={name: document[name] for name in details if name in document},
        )
