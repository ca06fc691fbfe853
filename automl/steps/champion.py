"""What `automl promote` and `automl rollback` do: a person decides about the champion."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from datetime import datetime
from typing import Any

from automl.domain.layout import MODEL_FILE
from automl.domain.settings import Settings
from automl.errors import ConfigError, NotFoundError
from automl.publishing.promotions import Change
from automl.publishing.registry import Registry
from automl.runs.context import StoreClock
from automl.storage.open import open_home
from automl.views.library import Library


def promote_version(
    settings: Settings, study: str, version: int, why: str | None
) -> dict[str, Any]:
    """Make a published version the champion and return what changed.

    Args:
        settings: where versions live.
        study: the study's name.
        version: its number.
        why: one sentence for the record.

    Raises:
        ConfigError: there is no such study or version.
        DamagedDataError: its `model.onnx` is not what was published.
    """

    def change(registry: Registry, now: datetime) -> Change:
        return registry.promote(version, _person(), why or "Promoted by hand.", now)

    return _document(settings, study, change)


def roll_back(settings: Settings, study: str, why: str | None) -> dict[str, Any]:
    """Make the champion before the present one champion again and return what changed.

    Args:
        settings: where versions live.
        study: the study's name.
        why: one sentence for the record.

    Raises:
        ConfigError: there is no such study, or no champion before the present one.
        DamagedDataError: that champion's `model.onnx` is not what was published.
    """

    def change(registry: Registry, now: datetime) -> Change:
        return registry.rollback(_person(), why or "Rolled back by hand.", now)

    return _document(settings, study, change)


def _document(
    settings: Settings, study: str, change: Callable[[Registry, datetime], Change]
) -> dict[str, Any]:
    home = open_home(settings)
    Library(home).study(study)  # raises if there is none
    registry = Registry(home.store, study)
    try:
        done = change(registry, StoreClock(home.store).now())
    except NotFoundError as error:
        raise ConfigError(error.message, error.hint) from error
    version = done.promotion.to_version
    return {
        "schema": 1,
        "study": study,
        "champion": version,
        "from": done.promotion.from_version,
        "promotion": done.number,
        "changed": done.is_new,
        "who": done.promotion.who,
        "when": done.promotion.when,
        "why": done.promotion.why,
        "onnx": registry.uri(version, MODEL_FILE),
    }


def _person() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"
