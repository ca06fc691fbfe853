"""A home whose every operation is observed, and copies of homes."""

from __future__ import annotations

from automl.runs.settings import Settings
from automl.storage.home import Home, ObjectHome
from automl.storage.leases import TTL_S, Leases, Records
from automl.storage.objects import ObjectStore
from automl.storage.open import open_store
from automl.storage.study_log import StudyLog
from tests.crash.points import ObservedLog, ObservedRecords, ObservedStore


def observed_home(settings: Settings) -> Home:
    """Return the home of `settings`, all its operations going through the process's point."""
    store = open_store(settings.home)
    if settings.study_log is None:
        return ObjectHome(ObservedStore(store))
    from automl.storage.sql.database import Database
    from automl.storage.sql.home import SqlHome
    from automl.storage.sql.records import SqlRecords

    database = Database(settings.study_log)  # one of each worker, as outside tests
    return _ObservedSqlHome(SqlHome(store, database), SqlRecords(database, store.uri))


class _ObservedSqlHome:
    """A home with its log and leases in a database.

    Args:
        home: the home.
        records: where its leases are.
    """

    def __init__(self, home: Home, records: Records) -> None:
        self._home, self._records = home, records

    @property
    def store(self) -> ObjectStore:
        return ObservedStore(self._home.store)

    def study_log(self, study: str) -> StudyLog:
        return ObservedLog(self._home.study_log(study))

    def leases(self, study: str, ttl_s: float = TTL_S) -> Leases:
        return Leases(ObservedRecords(self._records), f"studies/{study}/leases", ttl_s)

    def study_names(self) -> list[str]:
        return self._home.study_names()


def copy_home(source: Settings, target: Settings) -> None:
    """Copy everything but leases, which nobody holds between two steps."""
    old, new = source.open_home(), target.open_home()
    for entry in old.store.list(""):
        if "/leases/" not in entry.key:
            new.store.put(entry.key, old.store.get(entry.key).data)
    if source.study_log is None:  # its objects were the log
        return
    for study in old.study_names():
        log, events = new.study_log(study), old.study_log(study).read()
        for version in range(events[-1][0] + 1):
            same = [event for number, event in events if number == version]
            log.append(same, expected_version=version - 1)
