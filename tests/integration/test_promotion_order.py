"""The champion never moves to a version of a run that was opened before the champion's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from automl.domain.events import RunState, VersionPublished, VersionReserved
from automl.publishing.registry import Registry
from automl.runs import opening
from automl.runs.context import StepContext
from automl.runs.promotion import settle
from automl.storage.memory import MemoryObjectStore
from tests.homes import use_home
from tests.opened_runs import OWN, append, call, opened, run_in
from tests.versions import NOW, publish


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_home(tmp_path / "home", monkeypatch)


def published(context: StepContext) -> int:
    """Publish a version of the context's run, and return it."""
    version = publish(registry_of(context), context.run)
    at = context.clock.now()
    append(
        context,
        VersionReserved(at=at, run=context.run, version=version),
        VersionPublished(at=at, run=context.run, version=version),
    )
    return version


def registry_of(context: StepContext) -> Registry:
    return Registry(context.store, "digits")


def failed_and_followed(home: Path) -> tuple[StepContext, StepContext]:
    """Return a run that failed before its promotion, and a later one whose version is champion."""
    older = opened(home, "older", origin=OWN)
    opening.fail_run(older, "promote: the store was away")
    newer = opened(home, "newer", origin=OWN)
    version = published(newer)
    registry_of(newer).promote(version, "newer", "It is the first version.", NOW)
    opening.close_run(newer, RunState.SUCCEEDED, "", promoted=True)
    published(older)
    return older, newer


def test_a_cleared_run_does_not_take_the_place_of_a_later_runs_version(home: Path) -> None:
    older, _ = failed_and_followed(home)

    done = call("promote", "older", origin=OWN)

    reason = "Version 1, the champion, is of newer, which was opened later."
    assert (done["version"], done["promoted"], done["reason"]) == (2, False, reason)
    run = run_in(older, "older")
    assert (run.state, run.promoted, run.cause) == (RunState.SUCCEEDED, False, reason)
    champion = registry_of(older).champion()
    assert champion is not None
    assert champion.version == 1


def test_it_does_not_either_where_a_person_made_that_version_the_champion(home: Path) -> None:
    older, _ = failed_and_followed(home)
    registry = registry_of(older)
    registry.promote(2, "mia", "to see", NOW)
    registry.promote(1, "mia", "no", NOW)

    assert not call("promote", "older", origin=OWN)["promoted"]


def test_it_stays_champion_where_a_person_made_it_that(home: Path) -> None:
    older, _ = failed_and_followed(home)
    registry_of(older).promote(2, "mia", "It is fast.", NOW)

    done = call("promote", "older", origin=OWN)

    assert (done["promoted"], done["reason"]) == (True, "It is the champion.")


def test_a_step_called_again_does_not_promote_what_was_rolled_back_since(home: Path) -> None:
    context = opened(home, "one", origin=OWN)
    version, registry = published(context), registry_of(context)
    other = publish(registry, "elsewhere")
    registry.promote_once(version, "one", lambda _: "It is the first version.", NOW)  # and it died
    opening.fail_run(context, "promote: killed")
    registry.promote(other, "mia", "version 1 is slow", NOW)

    done = call("promote", "one", origin=OWN)

    assert not done["promoted"]
    assert done["reason"].startswith("It has been the champion, and another version")
    assert list(registry.promotions()) == [1, 2]


class PromotingStore(MemoryObjectStore):
    """A store in which another run promotes just before the first promotion is written."""

    other: Any = None

    def put_if_absent(self, key: str, data: bytes) -> str:
        if self.other is not None and "/promotions/" in key:
            promote, self.other = self.other, None
            promote()
        return super().put_if_absent(key, data)


def test_of_two_runs_that_promote_at_once_the_later_one_wins(home: Path) -> None:
    older, newer = opened(home, "older"), opened(home, "newer")
    store = PromotingStore()
    registry = Registry(store, "digits")
    first, second = publish(registry, "older"), publish(registry, "newer")
    later = Registry(store, "digits")
    store.other = lambda: settle(newer, run_in(newer, "newer"), later, second)

    promoted, reason = settle(older, run_in(older, "older"), registry, first)

    assert (promoted, reason) == (
        False, "Version 2, the champion, is of newer, which was opened later.",
    )  # fmt: skip
    assert [(each.who, each.to_version) for each in registry.promotions().values()] == [
        ("newer", second)
    ]
