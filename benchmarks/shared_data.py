"""The place of shared datasets, which are too large for the repository."""

from __future__ import annotations

import os
from pathlib import Path

_PLACE_VARIABLE = "AUTOML_SHARED"
_NAMED_PLACE = os.environ.get(_PLACE_VARIABLE)
_DATASETS = Path(_NAMED_PLACE or Path(__file__).parents[2] / "shared") / "datasets"


def shared_dataset(name: str) -> Path:
    """Return the folder of a real dataset; tests that use it carry `needs_shared(name)`.

    It lies below the folder that `AUTOML_SHARED` names; by default `shared` beside the checkout.
    """
    return _DATASETS / name


def shared_place_is_promised() -> bool:
    """Return whether there is a place of shared datasets, or somebody has named one."""
    return _NAMED_PLACE is not None or _DATASETS.is_dir()
