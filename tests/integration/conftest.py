"""What several files of integration tests start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.continuing import Place, publish_and_grow
from tests.homes import use_home


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A study that has searched and published version 1, and has more images since then."""
    return publish_and_grow(tmp_path_factory.mktemp("first"))


@pytest.fixture
def place(first: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A copy that may be changed, and the settings of this process for it."""
    copy = first.copy(tmp_path)
    use_home(copy.home, monkeypatch)
    return copy
