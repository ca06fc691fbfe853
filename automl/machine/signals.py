"""SIGTERM as a flag that loops ask for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from automl.errors import StorageError


class _Interruption(BaseException):
    """Raised wherever the main thread is; what catches exceptions lets it pass."""


class StopSignal:
    """Set once the process is asked to stop."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._interrupts = False

    def is_set(self) -> bool:
        """Return whether a stop was asked for."""
        return self._event.is_set()

    def set(self) -> None:
        """Ask for a stop."""
        self._event.set()

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Let a stop end the block at once, whatever the main thread does or waits for in it.

        The block must be one that may die at any moment.

        Raises:
            StorageError: a stop was asked for; the same call may succeed later.
        """
        try:
            self._interrupts = True
            if self.is_set():
                raise _Interruption  # noqa: TRY301 - as a signal does, from here on
            yield
        except _Interruption as error:
            raise StorageError(
                "The process was asked to stop.", "call it again: what is stored is whole"
            ) from error
        finally:
            self._interrupts = False

    @classmethod
    def on_sigterm(cls) -> StopSignal:
        """Return a flag that SIGTERM and SIGINT set; call it from the main thread."""
        stop = cls()

        def handle(signum: int, frame: FrameType | None) -> None:
            stop.set()
            if stop._interrupts:
                stop._interrupts = False
                raise _Interruption

        signal.signal(signal.SIGTERM, handle)
        signal.signal(signal.SIGINT, handle)
        return stop
