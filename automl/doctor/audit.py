"""Audits of one study."""

from __future__ import annotations

from typing import Any

from automl.domain.settings import Settings
from automl.runs.replay import replay_document
from automl.storage.open import open_home


def replay_study(settings: Settings, name: str) -> dict[str, Any]:
    """Return the document of `automl replay`: which proposals do not follow from the log.

    Args:
        settings: where the study is kept.
        name: the study's name.

    Raises:
        ConfigError: there is no such study, or this version does not search as a run was searched.
        StorageError: the log cannot be read.
    """
    return replay_document(open_home(settings), name)
