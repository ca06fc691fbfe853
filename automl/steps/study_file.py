"""Reads study files: YAML without surprises, paths relative to the file."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from automl.domain.parsing import parse_spec
from automl.domain.specification import LOCATION_KEYS, StudySpec
from automl.errors import ConfigError


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


def load_study_file(path: Path) -> StudySpec:
    """Return the specification in the file at `path`.

    Raises:
        ConfigError: with every problem of the file.
    """
    document = load_study_document(path)
    try:
        return parse_spec(document)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", error.hint, error.problems) from error
