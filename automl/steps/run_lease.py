"""The lease of a study's open run: renewed while any process of the run works."""

from __future__ import annotations

import logging
import threading
from types import TracebackType

from automl.errors import StorageError, StudyBusyError
from automl.steps.context import StepContext

RUN_TTL_S = 120.0  # a run whose processes all died frees the study after this time
_RENEW_S = 20.0
_NAME = "run"

log = logging.getLogger(__name__)


class RunLease:
    """Holds a study for one run; several processes of the run may hold it at once.

    Unlike a trial's lease it has no single owner: whoever of the run renews last keeps it for all.

    Args:
        context: the step's context.

    Raises:
        StudyBusyError: on entry, if another run holds the study.
    """

    def __init__(self, context: StepContext) -> None:
        self._leases = context.home.leases(context.spec.name, RUN_TTL_S)
        self._context = context
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="run-lease", daemon=True)

    def __enter__(self) -> RunLease:
        if self._leases.acquire(_NAME, self._context.run) is None:
            raise StudyBusyError(
                f"Run {self._leases.holder(_NAME)} of study {self._context.spec.name} is open.",
                "wait until it is over; a run whose processes died frees the study in two minutes",
            )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def release(self) -> None:
        """Free the study for the next run."""
        lease = self._leases.acquire(_NAME, self._context.run)
        if lease is not None:
            lease.release()

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
