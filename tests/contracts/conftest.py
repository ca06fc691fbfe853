"""Fixtures of the suites that run on every kind of home."""

from __future__ import annotations

from pathlib import Path

import pytest

from automl.domain.settings import Settings
from automl.storage.home import Home
from tests.homes import KINDS, SHARED_KINDS, HomeUnderTest, home_under_test, settings_for


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> HomeUnderTest:
    """A fresh home of every kind, with the means to damage it."""
    return home_under_test(request.param, request, tmp_path)


@pytest.fixture
def home(place: HomeUnderTest) -> Home:
    """A fresh home of every kind."""
    return place.home


@pytest.fixture(params=SHARED_KINDS)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """How processes find a fresh home of every kind that they can share."""
    return settings_for(request.param, request, tmp_path)
