"""The lease of a study's open run: renewed while any process of the run works."""

from __future__ import annotations

import logging
import math
import threading
from datetime import UTC, datetime

from automl.domain.events import RunState
from automl.domain.facts import Origin, OriginKind
from automl.errors import StorageError, StudyBusyError
from automl.machine.signals import StopSignal
from automl.runs.context import StepContext
from automl.storage.home import Home
from automl.storage.leases import Lease, Tenure

RUN_TTL_S = 120.0  # a run whose processes all died frees the study after this time
WAITING_TTL_S = 7 * 86_400.0  # none of whose steps runs: they wait for slots, or for a person
STOPPED_TTL_S = 3600.0  # whose step was asked to stop: it comes again soon, or somebody ended it
_RENEW_S = 20.0
_NAME = "run"

log = logging.getLogger(__name__)


def is_run_alive(home: Home, study: str) -> bool:
    """Return whether a process of a run works, or its next step may still be waiting for a slot."""
    return run_tenure(home, study) is not None


def run_tenure(home: Home, study: str) -> Tenure | None:
    """Return which run holds a study and since when; None if none does."""
    return home.leases(study, RUN_TTL_S).tenure(_NAME)


def is_waiting(tenure: Tenure) -> bool:
    """Return whether the step that left the lease was followed by none yet."""
    return tenure.ttl_s > RUN_TTL_S


def take_silent_study(home: Home, study: str, holder: str) -> Lease | None:
    """Return the lease of a study for a person; None if a run worked in the last two minutes."""
    return home.leases(study, RUN_TTL_S).acquire(_NAME, holder, lambda _: RUN_TTL_S)


class RunLease:
    """Holds a study for one run; several processes of the run may hold it at once.

    Unlike a trial's lease it has no single owner: whoever of the run renews last keeps it for all.
    On leaving the block it lives on for a week, in which the run's next step must get its pool
    slot, or its approval, and for an hour if the step was asked to stop; it is released if the run
    is over, or was never opened. A run of this machine never waits between steps: its lease ends
    two minutes after its processes.

    The DAG of the study's own file never runs twice at once. So a run of it does not wait for an
    earlier one that waits: that is over for Airflow. Two minutes without a sign of life free the
    study for it, as if processes had died.

    Args:
        context: the step's context.
        stop: becomes set when the process is asked to stop.

    Raises:
        StudyBusyError: on entry, if another run holds the study.
    """

    def __init__(self, context: StepContext, stop: StopSignal | None = None) -> None:
        self._leases = context.home.leases(context.spec.name, RUN_TTL_S)
        self._context, self._origin = context, Origin.of(context.origin)
        self._stop = StopSignal() if stop is None else stop
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="run-lease", daemon=True)

    def __enter__(self) -> RunLease:
        if self._leases.acquire(_NAME, self._context.run, self._patience_s) is None:
            raise self._busy()
        self._thread.start()
        return self

    def _patience_s(self, holder: str) -> float:
        """Return how long at most the lease of another run counts as live without a renewal."""
        study = self._context.record.study
        run, own = study.run(holder), study.run(self._context.run)
        is_before = run is not None and (own is None or study.is_later(own.name, run))
        is_same = run is not None and run.origin.dag == self._origin.dag
        never_both = is_before and is_same and self._origin.is_dag_of(self._context.spec.name)
        return RUN_TTL_S if never_both else math.inf

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        try:
            run = self._context.record.refresh().run(self._context.run)
            if run is not None and run.state is RunState.OPEN:
                leases = self._context.home.leases(self._context.spec.name, self._left_ttl_s)
                leases.acquire(_NAME, run.name)
            else:
                self.release()
        except StorageError as failure:
            log.warning("the study is free for other runs in two minutes: %s", failure)

    @property
    def _left_ttl_s(self) -> float:
        """Seconds for which the study is kept for the run's next step."""
        if self._origin.kind in {OriginKind.CLI, OriginKind.PYTHON}:
            return RUN_TTL_S
        return STOPPED_TTL_S if self._stop.is_set() else WAITING_TTL_S

    def release(self) -> None:
        """Free the study for the next run."""
        lease = self._leases.acquire(_NAME, self._context.run)
        if lease is not None:
            lease.release()

    def _busy(self) -> StudyBusyError:
        tenure, name = self._leases.tenure(_NAME), self._context.spec.name
        if tenure is None:
            return StudyBusyError(f"A run of study {name} has just ended.", "try again")
        run = self._context.record.refresh().run(tenure.holder)
        if run is None:
            progress = "it is being prepared"
        elif run.search_end is None:
            progress = f"its search ends at {_shown(run.deadline)}, and then it publishes"
        else:
            progress = "its search is over and it is about to publish"
        if is_waiting(tenure):
            return StudyBusyError(
                f"Run {tenure.holder} of study {name} is open and waits for its next step since "
                f"{_shown(tenure.renewed_at)}: {progress}.",
                f"try again when it is over; if that step will never come, `automl abandon {name}` "
                "frees the study",
            )
        return StudyBusyError(
            f"Run {tenure.holder} of study {name} is open and works: {progress}.",
            "try again when it is over; if its processes died, the study is free at "
            f"{_shown(tenure.ends_at)}",
        )

    def _keep(self) -> None:
        while not self._over.wait(_RENEW_S):
            try:
                held = self._leases.acquire(_NAME, self._context.run)
            except StorageError as error:
                log.warning("the run's lease could not be renewed, trying again: %s", error)
                continue
            if held is None:
                log.warning("another run has taken the study over")
                return


def _shown(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
