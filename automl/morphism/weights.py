"""How a child's weights are computed from its parent's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from automl.errors import DamagedDataError
from automl.morphism.architecture import Architecture, Shape

Array = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Weights = Mapping[str, Array]


class Recipe(Protocol):
    """Computes one of the child's arrays."""

    def build(self, weights: Weights) -> Array:
        """Return the child's array, float32, given the parent's arrays."""


@dataclass(frozen=True, slots=True)
class Constant:
    """An array that does not depend on the parent."""

    array: Array

    def build(self, weights: Weights) -> Array:
        """Return the array."""
        return self.array.copy()


@dataclass(frozen=True, slots=True, eq=False)
class ChannelMap:
    """The channels of a widened tensor.

    Attributes:
        source: for each channel of the child, the parent's channel it is or copies, int64.
        is_new: whether the channel is a copy that no layer of the parent reads, bool.
    """

    source: Indices
    is_new: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Inherit:
    """An array of the parent, its channels copied along the first two axes.

    Attributes:
        key: the parent's array.
        rows: the first axis, what the layer writes; None keeps it.
        columns: the second axis, what it reads; new columns are zero, so nothing changes.
        noise: new rows move by at most `noise / 2` times the array's range.
        seed: of the noise.
    """

    key: str
    rows: ChannelMap | None = None
    columns: ChannelMap | None = None
    noise: float = 0.0
    seed: tuple[int, ...] = ()

    def build(self, weights: Weights) -> Array:
        """Return the array with its new rows and columns."""
        array = np.asarray(weights[self.key], dtype=np.float32)
        reach = float(array.max() - array.min())
        if self.rows is not None:
            array = array[self.rows.source]
        if self.columns is not None:
            array = array[:, self.columns.source]
            array[:, self.columns.is_new] = 0.0
        if self.rows is not None and self.noise > 0:
            rng = np.random.default_rng(self.seed)
            shape = array[self.rows.is_new].shape
            array[self.rows.is_new] += np.float32(self.noise * reach) * (
                rng.random(shape, dtype=np.float32) - np.float32(0.5)
            )
        return array.copy()


@dataclass(frozen=True, slots=True)
class WeightMap:
    """Turns a parent's weights into its child's; keys are `<node index>.<name>`.

    Attributes:
        recipes: how each of the child's arrays is made.
        shapes: the shapes that the child expects.
    """

    recipes: Mapping[str, Recipe]
    shapes: Mapping[str, Shape]

    def __call__(self, weights: Weights) -> dict[str, Array]:
        """Return the child's arrays, float32; the parent's are not changed.

        Raises:
            DamagedDataError: the arrays are not those of the parent.
        """
        child: dict[str, Array] = {}
        for key, shape in self.shapes.items():
            try:
                child[key] = self.recipes[key].build(weights)
            except (KeyError, IndexError) as error:
                raise _misfit(key, f"the parent has no fitting array: {error}") from error
            if child[key].shape != shape:
                raise _misfit(key, f"its shape is {child[key].shape}, {shape} is expected")
        return child


@dataclass(frozen=True, slots=True)
class Edit:
    """A child in the numbering of the edit, before it is made canonical.

    Attributes:
        child: the changed graph.
        recipes: its arrays, by the child's present node indices.
    """

    child: Architecture
    recipes: Mapping[str, Recipe]

    def canonical(self) -> tuple[Architecture, WeightMap]:
        """Return the canonical child, and the weight map keyed by its indices."""
        child, new_index = self.child.canonical()
        recipes = {}
        for key, recipe in self.recipes.items():
            index, name = key.split(".")
            recipes[f"{new_index[int(index)]}.{name}"] = recipe
        return child, WeightMap(recipes, child.weight_shapes())


def _misfit(key: str, reason: str) -> DamagedDataError:
    return DamagedDataError(
        f"Weight {key} cannot be inherited: {reason}.",
        "the parent's checkpoint belongs to another architecture; restore it",
    )
