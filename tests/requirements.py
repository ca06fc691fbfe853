"""What some tests need besides the repository, and what becomes of them where it is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_PLACE_VARIABLE = "AUTOML_SHARED"
_NAMED_PLACE = os.environ.get(_PLACE_VARIABLE)
_DATASETS = Path(_NAMED_PLACE or Path(__file__).parents[2] / "shared") / "datasets"


def shared_dataset(name: str) -> Path:
    """Return the folder of a real dataset; tests that use it carry `needs_shared(name)`.

    It lies below the folder that `AUTOML_SHARED` names; by default `shared` beside the checkout.
    """
    return _DATASETS / name


def require(item: pytest.Item) -> None:
    """Skip a test whose needs are not met, with the reason, or fail it where they must be.

    A bare machine has no place of shared datasets, and continuous integration is green there too.
    A place that exists, or that somebody named, promises its content: under `CI=true` a dataset
    that is missing from it fails the tests that need it, so that they cannot vanish unnoticed.
    """
    for marker in item.iter_markers("needs_shared"):
        missing = _missing(*marker.args)
        if not missing:
            continue
        is_promised = _NAMED_PLACE is not None or _DATASETS.is_dir()
        if os.environ.get("CI") == "true" and is_promised:
            pytest.fail(f"{missing}, and CI=true skips nothing that was promised", pytrace=False)
        pytest.skip(missing)


def _missing(dataset: str) -> str:
    """Return what is missing of a dataset, or ""."""
    folder = shared_dataset(dataset)
    if not os.access(folder, os.R_OK | os.X_OK) or not any(folder.iterdir()):
        return f"{folder} is not there, or nothing in it can be read"
    return ""
