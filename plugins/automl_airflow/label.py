"""Label of a mapped task instance, shown while it runs.

Airflow renders `map_index_template` before and after a task. Between the two this module sends what
the task's runner itself would send (`SetRenderedMapIndex`), which Airflow does not promise to keep.
"""

from __future__ import annotations

import logging
import threading

_CLOSE_S = 2.0

log = logging.getLogger(__name__)


class LiveLabel:
    """Shows labels in the background: an API server that is slow or away holds no task up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: str | None = None
        self._sender: threading.Thread | None = None

    def __call__(self, text: str) -> None:
        """Show the label; of several that wait the last one is shown."""
        with self._lock:
            self._next = text
            if self._sender is not None:
                return
            self._sender = threading.Thread(target=self._send_all, daemon=True)
            self._sender.start()

    def close(self) -> None:
        """Show no label that still waits: the task's own comes next, and must not be overtaken."""
        with self._lock:
            self._next, sender = None, self._sender
        if sender is not None:
            sender.join(_CLOSE_S)

    def _send_all(self) -> None:
        while True:
            with self._lock:
                text, self._next = self._next, None
                if text is None:
                    self._sender = None
                    return
            try:
                _send(text)
            except Exception as error:  # noqa: BLE001 - a label is never worth a task
                log.debug("The label %r could not be shown: %s", text, error)


def _send(text: str) -> None:
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import CommsDecoder, SetRenderedMapIndex

    supervisor = getattr(task_runner, "SUPERVISOR_COMMS", None)
    if isinstance(supervisor, CommsDecoder):  # that of `dag.test()` is not safe for threads
        supervisor.send(SetRenderedMapIndex(rendered_map_index=text))
