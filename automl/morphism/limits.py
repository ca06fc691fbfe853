"""Limits of what architectures may cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from automl.morphism.architecture import Architecture
from automl.morphism.costs import DeviceFactors, training_work
from automl.morphism.memory import TrainingPlan, memory_need


@dataclass(frozen=True, slots=True)
class LatencyLimit:
    """A bound of the time for one image on one CPU thread.

    Attributes:
        most_ms: milliseconds.
        factors: predict the time.
    """

    most_ms: float
    factors: DeviceFactors


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """A bound of the memory that training is predicted to take; see `memory_need`.

    Attributes:
        most_bytes: bytes.
        plan: what a training is like.
    """

    most_bytes: int
    plan: TrainingPlan

    def need(self, architecture: Architecture) -> int:
        """Return the predicted bytes of a training."""
        return memory_need(architecture, self.plan).total


@dataclass(frozen=True, slots=True)
class Bounded:
    """A quantity of an architecture that has a limit.

    Attributes:
        name: what it is.
        value: the architecture's.
        most: the limit.
        unit: of both; empty for counts.
    """

    name: str
    value: float
    most: float
    unit: str = ""

    def __str__(self) -> str:
        value, most = (_text(number, self.unit) for number in (self.value, self.most))
        return f"{value}, the limit is {most}"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that an architecture may not exceed.

    Attributes:
        parameters: learned scalars.
        depth: convolutions and dense layers on the longest path.
        macs: multiply-adds for one image.
        activation_bytes: of all nodes' outputs for one image in float32; None for no limit.
        work: of a training step for each image, see `training_work`; None for no limit.
        latency: None for no limit.
        memory: None for no limit.
    """

    parameters: int = 2**24
    depth: int = 64
    macs: int = 2**28
    activation_bytes: int | None = None
    work: int | None = None
    latency: LatencyLimit | None = None
    memory: MemoryLimit | None = None

    def allow(self, architecture: Architecture) -> bool:
        """Return whether the architecture is within all limits."""
        return all(bounded.value <= bounded.most for bounded in self.bounded(architecture))

    def bounded(self, architecture: Architecture) -> Iterator[Bounded]:
        """Yield what the architecture has of everything that is limited, cheapest first."""
        yield Bounded("parameters", architecture.parameters, self.parameters)
        yield Bounded("macs", architecture.macs, self.macs)
        yield Bounded("depth", architecture.depth, self.depth)
        if self.activation_bytes is not None:
            size_bytes = architecture.activation_bytes
            yield Bounded("activation_bytes", size_bytes, self.activation_bytes, "bytes")
        if self.work is not None:
            yield Bounded("work", training_work(architecture), self.work)
        if self.latency is not None:
            predicted_ms = self.latency.factors.latency_ms(architecture)
            yield Bounded("latency_ms", predicted_ms, self.latency.most_ms, "ms")
        if self.memory is not None:
            size_bytes = self.memory.need(architecture)
            yield Bounded("device_memory", size_bytes, self.memory.most_bytes, "bytes")


def _text(number: float, unit: str) -> str:
    written = f"{number:,}" if isinstance(number, int) else f"{number:,.4g}"
    return f"{written} {unit}".rstrip()
