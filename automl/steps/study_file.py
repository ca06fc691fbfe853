"""Study files: YAML without surprises, what they may ask for, and samples of them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from automl.domain.parsing import Purpose, parse_spec
from automl.domain.specification import LOCATION_KEYS, StudySpec
from automl.errors import ConfigError
from automl.tracks.cards import installed_cards, load


class _StudyLoader(yaml.CSafeLoader):
    """The safe loader, refusing a key that is written twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        keys: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):
                if key in keys:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key!r} is written twice", key_node.start_mark
                    )
                keys.add(key)
        return super().construct_mapping(node, deep=deep)


def load_study_document(path: Path) -> dict[str, Any]:
    """Return the mapping that the file holds, its relative data paths made absolute.

    Raises:
        ConfigError: the file cannot be read, or is not YAML, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The study file {path} cannot be read: {error}.", "correct its path or its encoding"
        ) from error
    try:
        document = yaml.load(text, _StudyLoader)  # noqa: S506 - it is a safe loader
    except yaml.YAMLError as error:
        raise ConfigError(
            f"The study file {path} is not valid YAML: {error}", "correct the place it names"
        ) from error
    if not isinstance(document, dict):
        raise ConfigError(
            f"The study file {path} holds no mapping of keys to values.",
            "start it with `name:`, `task:` and `data:`",
        )
    data = document.get("data")
    if isinstance(data, dict):
        for key in LOCATION_KEYS:
            value = data.get(key)
            if isinstance(value, str) and value and "://" not in value:
                data[key] = str(path.resolve().parent / Path(value).expanduser())
    return document


def study_spec(document: object, *, purpose: Purpose = Purpose.PUBLISH) -> StudySpec:
    """Return the specification that a document describes, for the tracks that are installed.

    Args:
        document: a mapping as read from YAML or JSON.
        purpose: whether versions will be published, which takes sealed test rows.

    Raises:
        ConfigError: with every problem and its key path.
    """
    return parse_spec(document, installed_cards(), purpose=purpose)


def load_study_file(path: Path) -> StudySpec:
    """Return the specification in the file at `path`.

    Raises:
        ConfigError: with every problem of the file.
    """
    document = load_study_document(path)
    try:
        return study_spec(document)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", error.hint, error.problems) from error


@dataclass(frozen=True, slots=True)
class Offer:
    """Offer of the installed tracks: what a study may be about.

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
