"""Tracks are found by entry points, whose cards load nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from automl.errors import ConfigError
from automl.tracks.cards import card_of, installed_cards
from automl.tracks.image.track import TRACK
from automl.tracks.track import track_of

CARD = """
from automl.domain.card import Card
from automl.domain.objective import Objective

CARD = Card(
    "{task}", frozenset(), Objective.RMSE, frozenset(), uses_gpu=False, track="guests:TRACK"
)
TRACK = "the track of {task}"
"""


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Forget which tracks are installed, before the test and after it."""
    for cached in (installed_cards, track_of):
        cached.cache_clear()
    yield
    for cached in (installed_cards, track_of):
        cached.cache_clear()
    sys.modules.pop("guests", None)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: None) -> Path:
    """A folder of packages, in which whatever is installed is found."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def install(site: Path, name: str, task: str) -> None:
    """Install a package whose entry point `name` leads to a card for `task`."""
    metadata = site / "guests-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: guests\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[automl.tracks]\n{name} = guests:CARD\n")
    (site / "guests.py").write_text(CARD.format(task=task))


def test_the_image_track_is_installed() -> None:
    found: object = track_of("image_classification")

    assert found is TRACK
    assert card_of("image_classification") is TRACK.card


def test_an_installed_package_brings_a_track(site: Path) -> None:
    install(site, "guess_weights", "guess_weights")

    found: object = track_of("guess_weights")

    assert found == "the track of guess_weights"
    assert card_of("guess_weights").track == "guests:TRACK"
    assert "image_classification" in installed_cards()


def test_an_entry_point_has_the_name_of_its_task(site: Path) -> None:
    install(site, "weights", "guess_weights")

    with pytest.raises(
        ConfigError, match=r"entry point weights of automl\.tracks .* guess_weights"
    ):
        installed_cards()


def test_a_task_without_a_track_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"task 'poems'.*image_classification"):
        card_of("poems")


def test_cards_load_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from automl.tracks.cards import installed_cards\n"
        "assert 'image_classification' in installed_cards()\n"
        "heavy = {'numpy', 'torch', 'scipy', 'sklearn', 'onnx', 'onnxruntime', 'dask',"
        " 'distributed', 'boto3', 'PIL'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")
