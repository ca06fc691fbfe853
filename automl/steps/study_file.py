"""Study files: YAML without surprises, what they may ask for, and samples of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from automl.domain.parsing import Purpose, parse_spec
from automl.domain.plain import shown
from automl.domain.plain_yaml import read_yaml
from automl.domain.specification import LOCATION_KEYS, StudySpec
from automl.errors import ConfigError, Problem
from automl.machine.text_files import read_text_file
from automl.tracks.cards import installed_cards, load

_MOST_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class StudyText:
    """Content of a study file, as far as it can be read.

    Attributes:
        path: where the file is.
        text: all of it.
        document: what it says, its relative data paths made absolute; None if it is no YAML.
        problems: what is wrong with it already.
    """

    path: Path
    text: str
    document: object
    problems: tuple[Problem, ...]

    @property
    def locations(self) -> dict[str, str]:
        """The paths and URIs of data that it names, by key, whatever else is wrong with it."""
        data = self.document.get("data") if isinstance(self.document, dict) else None
        places = data if isinstance(data, dict) else {}
        return {key: places[key] for key in LOCATION_KEYS if isinstance(places.get(key), str)}

    def spec(self) -> StudySpec:
        """Return the specification.

        Raises:
            ConfigError: with every problem of the file.
        """
        if not isinstance(self.document, dict) and self.problems:
            raise ConfigError(
                f"The study file {self.path} cannot be understood.",
                "correct the place it names",
                self.problems,
            )
        if not isinstance(self.document, dict):
            raise ConfigError(
                f"The study file {self.path} holds no mapping of keys to values.",
                "start it with `name:`, `task:` and `data:`",
            )
        try:
            return study_spec(self.document, known=self.problems)
        except ConfigError as error:
            raise ConfigError(
                f"{self.path}: {error.message}", error.hint, error.problems
            ) from error


def read_study_file(path: Path) -> StudyText:
    """Return what the file at `path` holds, whatever that is.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        text = read_text_file(path, _MOST_BYTES)
    except ConfigError as error:
        raise ConfigError(
            f"The study file {path} cannot be used. {error.message}", error.hint
        ) from error
    read = read_yaml(text)
    problems = list(read.problems)
    data = read.document.get("data") if isinstance(read.document, dict) else None
    places = data if isinstance(data, dict) else {}
    for key in LOCATION_KEYS:
        value = places.get(key)
        if isinstance(value, str) and value and "://" not in value:
            try:
                places[key] = _absolute(path, value)
            except (OSError, RuntimeError, ValueError) as error:
                problems.append(Problem(f"data.{key}", f"{shown(value)} is no path: {error}"))
    return StudyText(path, text, read.document, tuple(problems))


def _absolute(path: Path, place: str) -> str:
    """Return a place that the study file at `path` names as a path from the root.

    Raises:
        ValueError: it is in the home of another user, which not every machine knows.
    """
    if place.startswith("~") and not place.startswith("~/"):
        raise ValueError("it begins with another user's home; write the path out")
    return str(path.resolve().parent / Path(place).expanduser())


def study_spec(
    document: object, *, purpose: Purpose = Purpose.PUBLISH, known: Sequence[Problem] = ()
) -> StudySpec:
    """Return the specification that a document describes, for the tracks that are installed.

    Args:
        document: a mapping as read from YAML or JSON.
        purpose: whether versions will be published, which takes sealed test rows.
        known: what is known to be wrong with the document already.

    Raises:
        ConfigError: with every problem and its key path.
    """
    return parse_spec(document, installed_cards(), purpose=purpose, known=known)


def load_study_file(path: Path) -> StudySpec:
    """Return the specification in the file at `path`.

    Raises:
        ConfigError: with every problem of the file.
    """
    return read_study_file(path).spec()


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
