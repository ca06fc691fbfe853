"""Cards of the installed tracks.

A track is found by an entry point of the group `automl.tracks`, which is named as its task and
leads to its `Card`. Neither this module nor a card loads anything heavy, numpy included: a process
that trains reads a specification before it knows how many threads its libraries may start.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import Any

from automl.domain.card import Card
from automl.errors import ConfigError

GROUP = "automl.tracks"


@cache
def installed_cards() -> Mapping[str, Card]:
    """Return the cards of all installed tracks by task.

    Raises:
        ConfigError: an entry point is named otherwise than its card's task.
    """
    from importlib.metadata import entry_points  # costs a tenth of what all views cost to import

    cards: dict[str, Card] = {}
    for entry in entry_points(group=GROUP):
        card: Card = entry.load()
        if card.task != entry.name:
            raise ConfigError(
                f"The entry point {entry.name} of {GROUP} leads to a track for {card.task}.",
                "name it as the task",
            )
        cards[card.task] = card
    return cards


def card_of(task: str) -> Card:
    """Return the card of the track for a task.

    Raises:
        ConfigError: no such track is installed.
    """
    cards = installed_cards()
    if task not in cards:
        raise ConfigError(
            f"No installed package provides a track for task {task!r}.",
            f"use one of {', '.join(sorted(cards))}, or install the package that has it"
            if cards
            else "install this project too: `pip install -e .` in its folder",
        )
    return cards[task]


def load(reference: str) -> Any:
    """Return what a reference of the form `module:attribute` names."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)
