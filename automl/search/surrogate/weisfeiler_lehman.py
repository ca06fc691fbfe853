"""Weisfeiler-Lehman features of labelled graphs (Shervashidze et al., JMLR 12, 2011)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from automl.search.space import LabelledGraph

ROUNDS = 2


class WeisfeilerLehman:
    """Counts a graph's neighbourhoods of growing radius.

    Equal neighbourhoods get equal columns, within one instance. Which column a neighbourhood gets
    depends on the order in which graphs are encoded; distances between counts do not.

    Args:
        rounds: radius of the largest neighbourhoods; the features of radius 0 are the labels.
    """

    def __init__(self, rounds: int = ROUNDS) -> None:
        self._columns: list[dict[Hashable, int]] = [{} for _ in range(rounds + 1)]

    def encode(self, graph: LabelledGraph) -> list[Counter[int]]:
        """Return, for each radius, how often each column's neighbourhood occurs.

        A node's neighbourhood is its own label, those of its inputs and those of its readers, each
        without order.
        """
        readers: list[list[int]] = [[] for _ in graph.labels]
        for index, sources in enumerate(graph.inputs):
            for source in sources:
                readers[source].append(index)
        signatures: list[Hashable] = list(graph.labels)
        counts = []
        for columns in self._columns:
            colours = [columns.setdefault(signature, len(columns)) for signature in signatures]
            counts.append(Counter(colours))
            signatures = [
                (
                    colour,
                    tuple(sorted([colours[source] for source in sources])),
                    tuple(sorted([colours[reader] for reader in read_by])),
                )
                for colour, sources, read_by in zip(colours, graph.inputs, readers, strict=True)
            ]
        return counts
