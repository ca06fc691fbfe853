"""The end of a slice, and of a search at its deadline, whatever is being computed just then."""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime, timedelta

from automl.domain.events import SearchEnd
from automl.domain.training import StopReason
from automl.errors import StorageError
from automl.machine.signals import StopSignal
from automl.runs.context import StepContext
from automl.runs.training_gpu import TOO_LATE_S
from automl.runs.trials import end_search

_FINISH_BEFORE_S = 1.5  # trials stop so long before the deadline, to record their result in time
_KEEP_SLOT_S = 12.0  # a slice does not end so shortly before the deadline

log = logging.getLogger(__name__)


class WorkerClock:
    """Tells a worker when to stop; as a context manager it makes the search end on time.

    A thread then records at the deadline that the search has ended, unless it has ended before: a
    worker that evaluates an epoch, or measures the trial that the deadline has stopped, may take
    its time without making the search longer. The slice begins on entry.

    Args:
        context: the step's context.
        deadline: when the run's search ends.
        stop: becomes set when the process is asked to stop.
        slice_s: how long the pool slot may be kept; None for the whole search.
    """

    def __init__(
        self, context: StepContext, deadline: datetime, stop: StopSignal, slice_s: float | None
    ) -> None:
        self._context, self._deadline = context, deadline
        self._stop, self._slice_s = stop, slice_s
        self._started_s = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._end_search, name="deadline", daemon=True)

    @property
    def left_s(self) -> float:
        """Seconds until the deadline."""
        return (self._deadline - self._context.clock.now()) / timedelta(seconds=1)

    @property
    def is_too_late(self) -> bool:
        """True if too little time is left to start a trial."""
        return self.left_s < TOO_LATE_S

    @property
    def is_asked_to_stop(self) -> bool:
        """The process has been asked to stop."""
        return self._stop.is_set()

    def stop_reason(self) -> StopReason | None:
        """Return why training must stop now, or None."""
        left_s = self.left_s
        if self._stop.is_set():
            return StopReason.SIGNAL
        if left_s <= _FINISH_BEFORE_S:
            return StopReason.DEADLINE
        if self._slice_s is None or time.monotonic() - self._started_s < self._slice_s:
            return None
        return StopReason.SLICE if left_s > _KEEP_SLOT_S else None

    def __enter__(self) -> WorkerClock:
        self._started_s = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _end_search(self) -> None:
        if self._over.wait(max(self.left_s, 0)):
            return
        given = self._context
        # a context of its own: the log's reader is not shared between threads
        context = StepContext.open(given.settings, given.spec, given.run, given.origin, given.home)
        try:
            end_search(context, SearchEnd.DEADLINE)
        except StorageError as error:
            log.warning("the worker records the end of the search when it can: %s", error)
