"""Base of all servers: they are started alone, or run by a supervisor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from automl_airflow.supervisor import Component, Supervisor

START_S = 30.0


class Server(ABC):
    """A server of 127.0.0.1, and how to start it alone; a supervisor can run its component."""

    def __init__(self) -> None:
        self._supervisor = Supervisor()

    @abstractmethod
    def component(self) -> Component:
        """Return the program that serves; its data and configuration are made if missing."""

    def furnish(self) -> None:  # noqa: B027 - most need nothing
        """Make what clients expect to be there, such as buckets; it may be there already."""

    def start(self) -> None:
        """Start the server and wait until it serves.

        Raises:
            ComponentError: it does not; the message has the end of its log.
        """
        try:
            self._supervisor.start([self.component()], START_S)
            self.furnish()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server, by force if it takes long; the data stays."""
        self._supervisor.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
