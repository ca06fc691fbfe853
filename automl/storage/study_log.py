"""The append-only log of one study, with optimistic concurrency.

Version *n* is an object written with put-if-absent, as Delta Lake does: whoever loses the race
reads the news and decides again. `docs/formats/study-log.md` is the format's specification.
"""

from __future__ import annotations

import json
import logging
import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from automl.domain.events import SCHEMA, Event, TrialOpened, event_from_json, event_to_json
from automl.domain.layout import LogKeys
from automl.domain.study import Study, replay
from automl.errors import (
    DamagedDataError,
    NewerSchemaError,
    NotFoundError,
    PreconditionFailedError,
    StaleWriteError,
    StorageError,
)
from automl.storage.objects import ObjectStore

SEGMENT = 100  # versions per sealed segment
_LOST_RACES = 200  # appends that may be lost in a row before a writer gives up
_LONGEST_PAUSE_S = 3.0  # after a lost race
_FEW_LOST = 4  # races that a writer loses to few others; more are a crowd's
_GROWTH = 1.5  # of the pause, with each race that is lost in a crowd

log = logging.getLogger(__name__)


class StudyLog(Protocol):
    """Append-only log of one study, safe for many processes."""

    def read(self, after: int = -1) -> Sequence[tuple[int, Event]]:
        """Return (version, event) of all versions later than `after`, oldest first."""

    def append(self, events: Sequence[Event], *, expected_version: int) -> int:
        """Add `events` durably as one version and return its number.

        Raises:
            StaleWriteError: the log has grown past `expected_version`.
        """


class ObjectStudyLog:
    """A study log on an object store.

    Args:
        store: where the log lives.
        folder: the log's folder.
    """

    def __init__(self, store: ObjectStore, folder: str) -> None:
        self._store, self._keys = store, LogKeys(folder)

    def read(self, after: int = -1) -> Sequence[tuple[int, Event]]:
        """Return (version, event) of all versions later than `after`, oldest first.

        A cold start reads sealed segments where there are any; then the next keys are asked for
        until one is absent, so that a warm reader costs one request. A cold start also looks
        whether the log goes on behind the first absent key.

        Raises:
            NewerSchemaError: a version was written by a newer version of the platform.
            DamagedDataError: a version cannot be read, or is missing.
        """
        found: list[tuple[int, Event]] = []
        version = after + 1
        while True:
            if version % SEGMENT == 0 and (segment := self._segment(version)):
                found += segment
                version += SEGMENT
                continue
            stored = self._get(self._keys.version(version))
            if stored is None and after < 0 and self._goes_on_after(version):
                stored = self._get(self._keys.version(version))  # it may have been written just now
                if stored is None:
                    raise DamagedDataError(
                        f"{self._keys.version(version)} in {self._store.uri} is missing, and "
                        "later versions are there.",
                        "restore it from a backup of the home; see docs/runbook.md",
                    )
            if stored is None:
                return found
            found += self._events(version, stored)
            version += 1

    def _segment(self, first: int) -> list[tuple[int, Event]]:
        """Return the events of a sealed segment; none if it is missing or damaged.

        It is derived data, so that its versions themselves make up for it.
        """
        try:
            versions = self._sealed(self._keys.segment(first))
            return [
                row
                for number, version in enumerate(versions, first)
                for row in self._events(number, version)
            ]
        except DamagedDataError as error:
            key = self._keys.segment(first)
            log.warning("%s is damaged, its versions are read one by one: %s", key, error.message)
            return []

    def _sealed(self, key: str) -> list[object]:
        document = self._get(key)
        if document is None:
            return []
        versions = document.get("versions")
        if not isinstance(versions, list) or len(versions) != SEGMENT:
            raise DamagedDataError(
                f"{key} in {self._store.uri} does not hold {SEGMENT} versions.", "delete it"
            )
        return versions

    def _goes_on_after(self, version: int) -> bool:
        """Return whether a later version of the same hundred, or a later segment, is there."""
        keys = self._keys
        places = (
            (keys.hundred(version), keys.version(version)),
            (keys.segments, keys.segment(version)),
        )
        return any(next(self._store.list(*place), None) is not None for place in places)

    def append(self, events: Sequence[Event], *, expected_version: int) -> int:
        """Add `events` durably as one version and return its number.

        A write whose reply was lost is recognised by its nonce and counts as done.

        Raises:
            StaleWriteError: the log has grown past `expected_version`.
        """
        version, nonce = expected_version + 1, uuid.uuid4().hex
        document = {
            "schema": SCHEMA,
            "version": version,
            "nonce": nonce,
            "events": [event_to_json(event) for event in events],
        }
        data = json.dumps(document, separators=(",", ":")).encode()
        try:
            self._store.put_if_absent(self._keys.version(version), data)
        except PreconditionFailedError as error:
            stored = self._get(self._keys.version(version))
            if stored is None or stored["nonce"] != nonce:
                raise StaleWriteError(
                    f"Version {version} of the study log exists already.", "read it and try again"
                ) from error
        if (version + 1) % SEGMENT == 0:
            self._seal(version + 1 - SEGMENT)
        return version

    def _seal(self, first: int) -> None:
        """Write a segment of complete versions; derived data, so a lost race is fine."""
        versions = [
            self._get(self._keys.version(version)) for version in range(first, first + SEGMENT)
        ]
        data = json.dumps({"schema": SCHEMA, "first": first, "versions": versions}).encode()
        try:
            self._store.put_if_absent(self._keys.segment(first), data)
        except PreconditionFailedError:
            return

    def _get(self, key: str) -> dict[str, Any] | None:
        try:
            data = self._store.get(key).data
        except NotFoundError:
            return None
        try:
            document = json.loads(data)
            schema = document["schema"]
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedDataError(
                f"{key} in {self._store.uri} is not a version of a study log.",
                "restore it from a backup of the home; see docs/runbook.md",
            ) from error
        if schema != SCHEMA:
            raise NewerSchemaError(
                f"{key} has schema {schema}, and this version reads {SCHEMA}.",
                "it was written by a newer version; upgrade this worker",
            )
        return dict(document)

    def _events(self, version: int, document: object) -> list[tuple[int, Event]]:
        if not isinstance(document, dict) or not isinstance(document.get("events"), list):
            raise DamagedDataError(
                f"Version {version} of the study log has no events.",
                "restore it from a backup of the home; see docs/runbook.md",
            )
        where = f"Version {version} of the study log"
        return [(version, event_from_json(event, where)) for event in document["events"]]


@dataclass(frozen=True, slots=True)
class _Ticket:
    """State that a proposal is computed from, not replayed yet.

    Attributes:
        before: the study before some news.
        news: the news, the trial's opening among them.
        version: the version that opened the trial.
    """

    before: Study
    news: Sequence[tuple[int, Event]]
    version: int

    def study(self) -> Study:
        """Return the study after the version."""
        return replay((row for row in self.news if row[0] <= self.version), self.before)


def _longest_pause_s(taken_s: float, lost: int) -> float:
    """Return the longest pause after a lost race.

    A few writers are quickest with pauses as long as a write takes. In a crowd most writes would be
    in vain, and slow down those that are not: whoever loses race after race waits longer each time.

    Args:
        taken_s: how long the write took.
        lost: races that were lost before it.
    """
    return min(2 * taken_s * _GROWTH ** max(0, lost - _FEW_LOST), _LONGEST_PAUSE_S)


class StudyRecord:
    """A study kept up to date from its log; the way in for everything that decides.

    Args:
        log: the study's log.
    """

    def __init__(self, log: StudyLog) -> None:
        self.log = log
        self.study = Study()
        self._tickets: dict[int, _Ticket] = {}

    def refresh(self) -> Study:
        """Read the log's news and return the study."""
        return self._advance(self.log.read(self.study.version))

    def _advance(self, news: Sequence[tuple[int, Event]]) -> Study:
        """Replay `news`, keep what proposals are computed from, return the study."""
        before = self.study
        self.study = replay(news, before)
        tickets = self._tickets | {
            event.n: _Ticket(before, news, version)
            for version, event in news
            if isinstance(event, TrialOpened)
        }
        trials = self.study.trials
        self._tickets = {n: at for n, at in tickets.items() if trials[n].is_unproposed}
        return self.study

    def ticket(self, number: int) -> Study:
        """Return the study after the version that opened a trial which has no candidate yet.

        What it follows from is kept when it is read: a claim never reads the log again. It is
        replayed when it is asked for, as most tickets are those of other workers.
        """
        return self._tickets[number].study()

    def commit(self, decide: Callable[[Study], Sequence[Event]]) -> Study:
        """Append what `decide` wants of the newest study, deciding again after every lost race.

        Args:
            decide: function from the study to the events to add; none leaves the log as it is.

        Returns:
            The study after the events.

        Raises:
            StorageError: the race was lost too often.
        """
        for lost in range(_LOST_RACES):
            study = self.refresh()
            events = decide(study)
            if not events:
                return study
            started_s = time.monotonic()
            try:
                version = self.log.append(events, expected_version=study.version)
            except StaleWriteError:  # a random pause, as long as the store is slow, lets all win
                taken_s = time.monotonic() - started_s  # hours, for a process that was frozen
                time.sleep(random.uniform(0, _longest_pause_s(taken_s, lost)))  # noqa: S311
                continue
            return self._advance([(version, event) for event in events])
        raise StorageError(
            f"The study log could not be appended to in {_LOST_RACES} tries.",
            "too many workers write at once; try again",
        )
