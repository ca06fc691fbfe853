"""SIGTERM as a flag that loops ask for."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class StopSignal:
    """Set once the process is asked to stop."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def is_set(self) -> bool:
        """Return whether a stop was asked for."""
        return self._event.is_set()

    def set(self) -> None:
        """Ask for a stop."""
        self._event.set()

    @classmethod
    def on_sigterm(cls) -> StopSignal:
        """Return a flag that SIGTERM and SIGINT set; call it from the main thread."""
        stop = cls()

        def handle(signum: int, frame: FrameType | None) -> None:
            stop.set()

        signal.signal(signal.SIGTERM, handle)
        signal.signal(signal.SIGINT, handle)
        return stop
