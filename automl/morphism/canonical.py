"""A node order that does not depend on the order given."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

Label = tuple[Any, ...]
Form = tuple[tuple[int, ...], ...]


def canonical_order(
    labels: Sequence[Label], inputs: Sequence[tuple[int, ...]], commutative: Sequence[bool]
) -> list[int]:
    """Return the nodes' present indices in canonical, topological order.

    Colours start with depth and label, and are refined by those of inputs and readers (Weisfeiler
    and Lehman 1968). A refined colour never changes the order of two nodes that differed before, so
    sorting by colour is topological. Where colours tie, each of the first tied nodes is singled out
    in turn and refinement goes on; the least form wins (McKay 1981). A node that leads to the form
    of one tried before is its image under an automorphism, and is not followed further.

    Args:
        labels: what a node is, apart from its place; mutually comparable.
        inputs: for each node, the earlier nodes that it reads, in order.
        commutative: whether the order of a node's inputs is irrelevant.
    """
    depths: list[int] = []
    for sources in inputs:
        if len(sources) == 1:  # almost all nodes
            depths.append(1 + depths[sources[0]])
        else:
            depths.append(1 + max([depths[source] for source in sources], default=-1))
    keys = list(zip(depths, labels, strict=True))
    order = sorted(range(len(keys)), key=keys.__getitem__)
    if all(keys[left] != keys[right] for left, right in pairwise(order)):
        return order
    graph = _Graph(inputs, commutative)
    return graph.search(graph.refined(_split([0] * len(order), [order], keys.__getitem__)))


@dataclass(frozen=True, slots=True)
class _Colouring:
    """An ordered partition of the nodes.

    Attributes:
        colours: how many nodes have a lower colour, for each node.
        tied: the nodes of equal colour where there are two or more, by colour.
    """

    colours: list[int]
    tied: list[list[int]]

    def order(self) -> list[int]:
        """Return the nodes by colour; the order is arbitrary where colours tie."""
        return sorted(range(len(self.colours)), key=self.colours.__getitem__)

    def singled_out(self, chosen: int) -> _Colouring:
        """Return the colouring in which a node of the first tied colour precedes the others."""
        return _split(self.colours, self.tied, lambda index: index != chosen, only_first=True)


def _split(
    colours: Sequence[int],
    tied: Sequence[list[int]],
    key: Callable[[int], Any],
    *,
    only_first: bool = False,
) -> _Colouring:
    """Order the nodes of each tied colour by their keys; all others keep their colours."""
    refined, still_tied = list(colours), []
    for place, cell in enumerate(tied):
        if only_first and place > 0:
            still_tied.append(cell)
            continue
        colour = colours[cell[0]]
        for _, group in groupby(sorted(cell, key=key), key=key):
            alike = list(group)
            for index in alike:
                refined[index] = colour
            colour += len(alike)
            if len(alike) > 1:
                still_tied.append(alike)
    return _Colouring(refined, still_tied)


class _Graph:
    def __init__(self, inputs: Sequence[tuple[int, ...]], commutative: Sequence[bool]) -> None:
        self._inputs = inputs
        self._commutative = commutative
        self._readers: list[list[tuple[int, int]]] = [[] for _ in inputs]
        for index, sources in enumerate(inputs):
            for place, source in enumerate(sources):
                self._readers[source].append((index, 0 if commutative[index] else place))

    def refined(self, colouring: _Colouring) -> _Colouring:
        """Split colours by the colours around them until none splits any more."""
        while colouring.tied:
            colours = colouring.colours
            signatures = {
                index: self._signature(index, colours) for cell in colouring.tied for index in cell
            }
            finer = _split(colours, colouring.tied, signatures.__getitem__)
            if len(finer.tied) == len(colouring.tied) and finer.colours == colours:
                return finer
            colouring = finer
        return colouring

    def search(self, colouring: _Colouring) -> list[int]:
        """Return the order of the least form among the discrete refinements."""
        return self._least(colouring)[1] if colouring.tied else colouring.order()

    def _least(self, colouring: _Colouring) -> tuple[Form, list[int]]:
        if not colouring.tied:
            return self._leaf(colouring)
        first, *others = colouring.tied[0]
        chosen = self.refined(colouring.singled_out(first))
        best, known = self._least(chosen), {self._first_leaf(chosen)}
        for other in others:
            chosen = self.refined(colouring.singled_out(other))
            form = self._first_leaf(chosen)
            if form not in known:
                known.add(form)
                best = min(best, self._least(chosen))
        return best

    def _first_leaf(self, colouring: _Colouring) -> Form:
        while colouring.tied:
            colouring = self.refined(colouring.singled_out(colouring.tied[0][0]))
        return self._leaf(colouring)[0]

    def _leaf(self, colouring: _Colouring) -> tuple[Form, list[int]]:
        order = colouring.order()
        return tuple(self._read(index, colouring.colours) for index in order), order

    def _signature(self, index: int, colours: Sequence[int]) -> Hashable:
        readers = sorted([(colours[reader], place) for reader, place in self._readers[index]])
        return self._read(index, colours), readers

    def _read(self, index: int, colours: Sequence[int]) -> tuple[int, ...]:
        read = [colours[source] for source in self._inputs[index]]
        return tuple(sorted(read) if self._commutative[index] else read)
