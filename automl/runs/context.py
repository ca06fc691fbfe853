"""Context of steps: the specification, the home, the study's log and its leases."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from automl.domain.events import RunState
from automl.domain.layout import StudyKeys
from automl.domain.settings import Settings
from automl.domain.specification import StudySpec
from automl.domain.study import Run, Study
from automl.errors import SearchError
from automl.storage.home import Home
from automl.storage.leases import Leases
from automl.storage.objects import ObjectStore
from automl.storage.open import open_home
from automl.storage.study_log import StudyRecord


class StoreClock:
    """The store's clock, asked at first use, then followed by this machine's monotonic clock.

    Workers on machines whose clocks differ so agree on deadlines. Asking may write to the store.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._anchor: tuple[datetime, float] | None = None

    def now(self) -> datetime:
        """Return the present time in UTC."""
        if self._anchor is None:
            self._anchor = self._store.now(), time.monotonic()
        anchor, anchor_s = self._anchor
        return anchor + timedelta(seconds=time.monotonic() - anchor_s)


@dataclass(frozen=True, slots=True)
class StepContext:
    """Context that a step of one run works with.

    Attributes:
        settings: settings of this process.
        spec: the study's specification.
        run: id of the run.
        origin: who started the run, as the log tells it.
        home: where all state is kept.
        record: the study, kept up to date from its log.
        leases: the leases of the study's trials and of its open run.
        clock: the store's clock.
    """

    settings: Settings
    spec: StudySpec
    run: str
    origin: str
    home: Home
    record: StudyRecord
    leases: Leases
    clock: StoreClock

    @classmethod
    def open(
        cls, settings: Settings, spec: StudySpec, run: str, origin: str, home: Home | None = None
    ) -> StepContext:
        """Connect to the home; nothing is written.

        Args:
            settings: settings of this process.
            spec: the study's specification.
            run: id of the run.
            origin: who started the run, as the log tells it.
            home: where all state is kept; by default what the settings name.
        """
        home = open_home(settings) if home is None else home
        return cls(
            settings,
            spec,
            run,
            origin,
            home,
            StudyRecord(home.study_log(spec.name)),
            home.leases(spec.name),
            StoreClock(home.store),
        )

    @property
    def store(self) -> ObjectStore:
        """The home's objects."""
        return self.home.store

    @property
    def keys(self) -> StudyKeys:
        """The study's keys in the home."""
        return StudyKeys(self.spec.name)

    def opened_run(self) -> Run:
        """Return this run as the log tells it now; see `run_in`."""
        return self.run_in(self.record.refresh())

    def run_in(self, study: Study) -> Run:
        """Return this run, which is open or has succeeded: then its steps find their results.

        Raises:
            SearchError: it was never opened, has failed, or another run took its place.
        """
        run = study.run(self.run)
        if run is None:
            raise SearchError(
                f"Run {self.run} of study {self.spec.name} was never opened.",
                "run the steps in order: prepare, open_run, run_worker",
            )
        if run.state in {RunState.FAILED, RunState.ABANDONED}:
            raise SearchError(
                f"Run {self.run} of study {self.spec.name} was closed as {run.state}: {run.cause}",
                "start a new run, which continues the study with all trials so far; under Airflow "
                "the task may be cleared instead: then this run goes on",
            )
        return run
