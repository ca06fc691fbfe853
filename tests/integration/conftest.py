"""What several files of integration tests start from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.continuing import Place, publish_and_grow


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A study that has searched and published version 1, and has more images since then."""
    return publish_and_grow(tmp_path_factory.mktemp("first"))


@pytest.fixture
def place(first: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A copy that may be changed, and the settings of this process for it."""
    for name in [name for name in os.environ if name.startswith("AUTOML_")]:
        monkeypatch.delenv(name)
    copy = first.copy(tmp_path)
    monkeypatch.setenv("AUTOML_HOME", str(copy.home))
    return copy
