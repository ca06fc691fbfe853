"""Maps from a parent's weights to those of a child."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from automl.errors import DamagedDataError
from automl.morphism.architecture import Architecture
from automl.morphism.nodes import Node

Array = npt.NDArray[np.float32]
Weights = Mapping[str, Array]

NEW = -1  # the origin of a node that the parent does not have


@dataclass(frozen=True, slots=True)
class Edit:
    """A child in the numbering of the edit, before it is made canonical.

    Attributes:
        nodes: the changed graph.
        origins: for each node the parent's node whose weights it has, or NEW.
        changed: returns the arrays that are no copies of the parent's, by `<node index>.<name>` in
            this numbering, given the parent's arrays in float32.
    """

    nodes: Sequence[Node]
    origins: Sequence[int]
    changed: Callable[[Weights], dict[str, Array]]


@dataclass(frozen=True, slots=True)
class WeightMap:
    """Turns a parent's weights into its child's; keys are `<node index>.<name>`.

    Attributes:
        parent: the architecture that the weights belong to.
        child: the canonical child.
        edit: leads from the one to the other.
        order: for each node of the child, its index in the edit.
    """

    parent: Architecture
    child: Architecture
    edit: Edit
    order: Sequence[int]

    def __call__(self, weights: Weights) -> dict[str, Array]:
        """Return the child's arrays, float32; the parent's are not changed.

        Raises:
            DamagedDataError: the arrays are not those of the parent.
        """
        known = self._checked(weights)
        changed = self.edit.changed(known)
        child: dict[str, Array] = {}
        for key, shape in self.child.weight_shapes().items():
            index, name = key.split(".")
            place = self.order[int(index)]
            array = changed.get(f"{place}.{name}")
            if array is None:
                array = known[f"{self.edit.origins[place]}.{name}"].copy()
            assert array.shape == shape, (key, array.shape, shape)
            child[key] = np.ascontiguousarray(array, dtype=np.float32)
        return child

    def _checked(self, weights: Weights) -> Weights:
        known: dict[str, Array] = {}
        for key, shape in self.parent.weight_shapes().items():
            if key not in weights:
                raise _misfit(key, "the parent has no such array")
            known[key] = np.asarray(weights[key], dtype=np.float32)
            if known[key].shape != shape:
                raise _misfit(key, f"its shape is {known[key].shape}, {shape} is expected")
        return known


def _misfit(key: str, reason: str) -> DamagedDataError:
    return DamagedDataError(
        f"Weight {key} cannot be inherited: {reason}.",
        "the parent's checkpoint belongs to another architecture; restore it",
    )
