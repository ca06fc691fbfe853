"""Sample datasets of the installed tracks."""

from __future__ import annotations

from pathlib import Path

from automl.errors import ConfigError
from automl.tracks.cards import installed_cards, load


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
