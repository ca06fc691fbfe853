"""What some tests need besides the repository, and what becomes of them where it is missing."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

from benchmarks.shared_data import shared_dataset, shared_place_is_promised
from tests.chromium import find_chromium


def require(item: pytest.Item) -> None:
    """Skip a test whose needs are not met, with the reason, or fail it where they must be.

    A bare machine has no place of shared datasets, and continuous integration is green there too.
    A place that exists, or that somebody named, promises its content: under `CI=true` a dataset
    that is missing from it fails the tests that need it, so that they cannot vanish unnoticed. A
    package of an extra may be missing from an environment, but under `CI=true` it may not. A
    browser may be missing anywhere: only root can install one.
    """
    for marker in item.iter_markers("needs_shared"):
        missing = _missing(*marker.args)
        if not missing:
            continue
        if os.environ.get("CI") == "true" and shared_place_is_promised():
            pytest.fail(f"{missing}, and CI=true skips nothing that was promised", pytrace=False)
        pytest.skip(missing)
    if item.get_closest_marker("needs_browser") is not None and find_chromium() is None:
        pytest.skip("no Chromium is on the PATH")
    for marker in item.iter_markers("needs_package"):
        (package,) = marker.args
        if find_spec(package) is not None:
            continue
        missing = f"{package}, which comes with an extra, is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{missing}, and CI=true skips nothing that it installs", pytrace=False)
        pytest.skip(missing)


def _missing(dataset: str) -> str:
    """Return what is missing of a dataset, or ""."""
    folder = shared_dataset(dataset)
    if not os.access(folder, os.R_OK | os.X_OK) or not any(folder.iterdir()):
        return f"{folder} is not there, or nothing in it can be read"
    return ""
