"""Networks for people."""

from __future__ import annotations

from automl.domain.card import Portrait
from automl.morphism.architecture import Architecture
from automl.morphism.summary import difference, table


def portrait(genotype: str, parent: str | None) -> Portrait:
    """Return a network in a line, as a table of its layers, and against its parent.

    Args:
        genotype: of the network.
        parent: its parent's; None for a seed.
    """
    network = Architecture.from_genotype(genotype)
    changes = None if parent is None else difference(Architecture.from_genotype(parent), network)
    return Portrait(summary=network.summary(), layers=table(network), difference=changes)
