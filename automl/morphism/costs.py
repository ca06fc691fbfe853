"""Costs of an architecture, computed from its graph: time and work."""

from __future__ import annotations

from dataclasses import dataclass

from automl.morphism.architecture import Architecture

WORK_PER_BYTE = 10  # multiply-adds; one CPU thread makes 5 to 15 in the time that moves a byte
_TRAINING_PASSES = 3  # a backward pass does the work of two forward passes


@dataclass(frozen=True, slots=True)
class DeviceFactors:
    """Speed of a machine at predicting one image on one CPU thread.

    Attributes:
        ps_per_flop: picoseconds for a multiply-add of a convolution or dense layer.
        ps_per_byte: picoseconds for a byte of a node's output.
        ns_per_layer: nanoseconds for a node, whatever it computes.
    """

    ps_per_flop: int
    ps_per_byte: int
    ns_per_layer: int

    def latency_ms(self, architecture: Architecture) -> float:
        """Return the milliseconds for one image on one CPU thread, predicted."""
        total_ps = (
            self.ps_per_flop * architecture.macs
            + self.ps_per_byte * architecture.activation_bytes
            + 1000 * self.ns_per_layer * len(architecture.nodes)
        )
        return total_ps / 1e9


def training_work(architecture: Architecture) -> int:
    """Return the work of one training step for each image, in multiply-adds.

    A byte of a node's output, which is written once and read about as often, counts as much as
    `WORK_PER_BYTE` multiply-adds. Every candidate is trained on the same images for as many epochs,
    so this is proportional to a trial's cost.
    """
    forward = architecture.macs + WORK_PER_BYTE * architecture.activation_bytes
    return _TRAINING_PASSES * forward
