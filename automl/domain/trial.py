"""A trial: one evaluation of a candidate, and everything that is known of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from automl.domain.candidate import Candidate


class Outcome(StrEnum):
    """Outcome of a trial."""

    COMPLETED = "completed"
    PRUNED = "pruned"
    OUT_OF_MEMORY = "out_of_memory"
    DIVERGED = "diverged"
    TIMED_OUT = "timed_out"
    FAILED = "failed"
    LOST = "lost"


class TrialState(StrEnum):
    """Progress of a trial; leases tell whether somebody works on it."""

    OPENED = "opened"  # has a number, no candidate yet
    PROPOSED = "proposed"  # has a candidate, nobody has claimed it
    CLAIMED = "claimed"  # attempt `attempt` trains it, or died while it did
    FINISHED = "finished"


class Device(BaseModel):
    """Device that a worker trains on.

    Attributes:
        type: "cpu", or the product name of the GPU.
        memory_bytes: what one training may take there; None if it cannot be told.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    type: str
    memory_bytes: int | None = None


class NetworkMeasurement(BaseModel):
    """Measurements that only trials of networks have.

    Attributes:
        parameters: learned scalars.
        macs: MACs (multiply-adds) of one forward pass of one example.
        batch_size: examples of a step.
        micro_batch: examples of a forward pass; fewer than those of a step where memory ran out and
            gradients were accumulated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    parameters: int | None = None
    macs: int | None = None
    batch_size: int | None = None
    micro_batch: int | None = None

    @property
    def is_accumulated(self) -> bool:
        """True if memory ran out for batches, so that gradients were accumulated."""
        if self.batch_size is None or self.micro_batch is None:
            return False
        return self.micro_batch < self.batch_size


# Keys of networks in logs of releases that wrote them among the others.
_FLAT = {
    "parameters": "parameters",
    "flops": "macs",
    "batch_size": "batch_size",
    "micro_batch": "micro_batch",
}


class Measurement(BaseModel):
    """Measurements of a trial.

    Attributes:
        score: the objective on the selection rows, in its natural orientation.
        error: standard error of the score.
        loss: what is minimised; the score with its sign changed where higher is better.
        epochs: epochs trained over all attempts.
        best_epoch: the epoch (from 0) whose weights are kept.
        seconds: time spent training, over all attempts.
        latency_ms: median time of one example on one CPU thread.
        weights: key of the checkpoint with the best weights.
        resumed_at: epochs that the last attempt continued from, 0 for a fresh start.
        log_loss: of those weights on the selection rows (nats per example); None in older logs.
        device: type of the device that trained.
        predicted_bytes: memory that whole batches were predicted to take there.
        peak_bytes: memory that was taken at the peak; None where it could not be measured.
        network: what only networks have; None for other candidates.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    score: float | None = None
    error: float | None = None
    loss: float | None = None
    epochs: int = 0
    best_epoch: int | None = None
    seconds: float = 0.0
    latency_ms: float | None = None
    weights: str | None = None
    resumed_at: int = 0
    log_loss: float | None = None
    device: str | None = None
    predicted_bytes: int | None = None
    peak_bytes: int | None = None
    network: NetworkMeasurement | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_flat(cls, document: Any) -> Any:
        """Gather the keys of networks, which earlier releases wrote among the others."""
        if not isinstance(document, dict) or "network" in document:
            return document
        own = dict(document)
        network = {new: own.pop(old, None) for old, new in _FLAT.items()}
        if any(value is not None for value in network.values()):
            own["network"] = network
        return own

    @property
    def cost(self) -> int:
        """Cost that ranks trials of equal loss: the MACs of a network, 0 of what has none."""
        return 0 if self.network is None else self.network.macs or 0

    @property
    def is_accumulated(self) -> bool:
        """True if memory ran out for batches, so that gradients were accumulated."""
        return self.network is not None and self.network.is_accumulated


@dataclass(frozen=True, slots=True)
class RungResult:
    """Measurements of a trial when it had trained the epochs of a rung.

    Attributes:
        rung: the rung, from 1.
        epochs: epochs trained by then.
        planned: epochs that the trial was to train in all.
        loss: what is minimised.
        score: the objective on the selection rows, in its natural orientation.
        error: standard error of the score.
        log_loss: on the selection rows (nats per example); None where predictions are no
            probabilities.
        recorded_in: log version that holds it.
        resolution: height and width in pixels that the network saw by then; None in logs of earlier
            releases.
        share: of the training that was done by then, above 0 to 1; None in older logs.
    """

    rung: int
    epochs: int
    planned: int
    loss: float
    score: float
    error: float
    log_loss: float | None
    recorded_in: int
    resolution: int | None = None
    share: float | None = None

    @property
    def done(self) -> float:
        """Share of the training that was done by then, by its epochs where no log tells."""
        return self.epochs / self.planned if self.share is None else self.share


@dataclass(frozen=True, slots=True)
class Trial:
    """One evaluation of a candidate.

    Attributes:
        number: its place in the study, from 0.
        run: the run that opened it.
        generation: trials of one generation and snapshot are comparable.
        snapshot: id of the dataset it is measured on.
        state: how far it has come.
        strategy: who proposed the candidate; "" before it is proposed.
        candidate: what is evaluated; None before it is proposed.
        based_on: log version whose prefix the proposal was computed from.
        attempt: the last claimed attempt, the fencing token; 0 before the first claim.
        worker: who claimed it last.
        claimed_in: the run in which it was claimed last.
        checkpoints: keys that claims continue from, oldest first.
        outcome: how it ended; None while it has not.
        measurement: what it measured.
        cause: why it did not complete.
        finished_by: the run in which it ended.
        opened_in: log version of its ticket; its proposal is computed from the log up to there.
        releases: how often it was given back with a checkpoint.
        finished_in: log version of its outcome; -1 before.
        repeats: the trial of another snapshot whose candidate it measures again, or None.
        rungs: what it measured on its way, in the order of the rungs.
        device: of the worker that opened it, for which its candidate is chosen; None in older logs.
    """

    number: int
    run: str
    generation: int
    snapshot: str
    state: TrialState = TrialState.OPENED
    strategy: str = ""
    candidate: Candidate | None = None
    based_on: int | None = None
    attempt: int = 0
    worker: str = ""
    claimed_in: str | None = None
    checkpoints: tuple[str, ...] = ()
    outcome: Outcome | None = None
    measurement: Measurement = field(default_factory=Measurement)
    cause: str = ""
    finished_by: str | None = None
    opened_in: int = -1
    releases: int = 0
    finished_in: int = -1
    repeats: int | None = None
    rungs: tuple[RungResult, ...] = ()
    device: Device | None = None

    @property
    def is_unproposed(self) -> bool:
        """True while it waits for its candidate."""
        return self.candidate is None and self.state is not TrialState.FINISHED

    @property
    def deaths(self) -> int:
        """Attempts that neither finished the trial nor gave it back, the present one aside."""
        return max(0, self.attempt - self.releases - 1)

    @property
    def loss(self) -> float | None:
        """Loss, which is minimised; None if nothing was measured."""
        return self.measurement.loss

    @property
    def can_win(self) -> bool:
        """True if it has a score and weights to publish; those from before it diverged are good."""
        return (
            self.outcome in {Outcome.COMPLETED, Outcome.TIMED_OUT, Outcome.DIVERGED}
            and self.measurement.loss is not None
            and self.measurement.weights is not None
        )
