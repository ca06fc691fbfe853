"""What the installed tracks offer: tasks, objectives, keys of the data, and sample datasets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from automl.errors import ConfigError
from automl.tracks.cards import installed_cards, load


@dataclass(frozen=True, slots=True)
class Offer:
    """What a study may be about.

    Attributes:
        tasks: values of `task`, in alphabetical order.
        objectives: values of `search.objective` that one of them understands, in that order.
        data_keys: keys of the section `data` that one of them understands.
    """

    tasks: tuple[str, ...]
    objectives: tuple[str, ...]
    data_keys: frozenset[str]


def offer() -> Offer:
    """Return what all installed tracks offer together; nothing heavy is loaded.

    Raises:
        ConfigError: no track is installed.
    """
    cards = installed_cards().values()
    if not cards:
        raise ConfigError("No track is installed.", "install automl-airflow with its entry points")
    return Offer(
        tasks=tuple(sorted(card.task for card in cards)),
        objectives=tuple(sorted({each.value for card in cards for each in card.objectives})),
        data_keys=frozenset[str]().union(*(card.data_keys for card in cards)),
    )


def write_sample(name: str, directory: Path) -> Path:
    """Write a sample dataset with a study file, and return the latter's path.

    Args:
        name: of the sample.
        directory: where to; it is made if need be.

    Raises:
        ConfigError: no installed track has such a sample.
    """
    samples: dict[str, str] = {}
    for card in installed_cards().values():
        samples.update(card.samples)
    if name not in samples:
        raise ConfigError(f"There is no sample {name!r}.", f"use {' or '.join(sorted(samples))}")
    study: Path = load(samples[name])(directory)
    return study
