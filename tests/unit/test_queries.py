from __future__ import annotations

import pytest

from automl.errors import ConfigError
from automl.storage.home import Home, ObjectHome
from automl.storage.memory import MemoryObjectStore
from automl.views.queries import leaderboard_document, show_document
from tests.shown import write_study


@pytest.fixture(scope="module")
def home() -> Home:
    home = ObjectHome(MemoryObjectStore())
    write_study(home)
    return home


def test_a_seed_is_shown_layer_by_layer(home: Home) -> None:
    shown = show_document(home, "digits", 0)

    assert shown["architecture"].startswith("16 px: conv3x3-24 ")
    assert len(shown["layers"].splitlines()) == len(shown["genotype"]["nodes"]) + 2
    assert shown["difference"] is None


def test_a_child_is_shown_against_its_parent(home: Home) -> None:
    shown = show_document(home, "digits", 1)

    first, *changes = shown["difference"].splitlines()
    assert first.startswith("parameters ")
    assert changes
    assert {change[0] for change in changes} <= {"+", "-", "~"}
    assert shown["moves"]


def test_a_trial_without_a_candidate_has_no_network_to_show(home: Home) -> None:
    shown = show_document(home, "digits", 2)

    assert (shown["genotype"], shown["architecture"], shown["layers"], shown["difference"]) == (
        (None,) * 4
    )


def test_rungs_are_shown(home: Home) -> None:
    rows = {row["trial"]: row for row in leaderboard_document(home, "digits")["trials"]}
    shown = show_document(home, "digits", 1)

    assert [rows[n]["rung"] for n in range(3)] == [0, 2, 0]
    assert shown["rung"] == 2
    assert shown["rungs"][0] == {
        "rung": 1, "epochs": 3, "planned": 30, "loss": -0.5, "score": 0.5, "error": 0.02,
        "log_loss": 1.5, "resolution": 8,
    }  # fmt: skip
    assert show_document(home, "digits", 0)["rungs"] == []


def test_an_unknown_trial_is_refused(home: Home) -> None:
    with pytest.raises(ConfigError, match="has no trial 3") as caught:
        show_document(home, "digits", 3)
    assert caught.value.hint == "trials are 0 to 2"
