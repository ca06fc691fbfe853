"""Injections: what a drill does to a stack, what that may cost, and how it is seen to be over."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from automl_airflow.supervisor import State

from tests.drill.site import Site


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost that an injection may have.

    Attributes:
        tries: of Airflow's retries, of each task that runs while it lasts.
        words: of which a run may fail that it hits; "" where none may.
        within_s: until it is over.
    """

    tries: int = 0
    words: str = ""
    within_s: float = 120.0


class Injection(ABC):
    """An injection. It is made, injected once, and then asked whether it is over.

    Args:
        rng: chooses where there are several things to hit.

    Attributes:
        name: what it is called in the table.
        cost: what it may cost.
    """

    name: ClassVar[str]
    cost: ClassVar[Cost] = Cost()

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    @abstractmethod
    def inject(self, site: Site) -> str:
        """Do it, and return what was hit.

        Raises:
            AssertionError: there was nothing to hit.
        """

    @abstractmethod
    def over(self, site: Site) -> str:
        """Return what has happened once it is over; "" while it is not."""

    def release(self, site: Site) -> None:  # noqa: B027 - most leave nothing
        """Take back what would last, whether it is over or not."""


class Restart(Injection):
    """A component that ends: it must be started again by the supervisor, and be healthy."""

    component: str

    def note(self, site: Site) -> None:
        """Remember how often it had been started again before it is hit."""
        self._restarts, self._at_s = site.report(self.component).restarts, time.time()

    def over(self, site: Site) -> str:
        """Return what the supervisor has said of it, once all components are healthy."""
        report = site.report(self.component)
        is_back = report.restarts > self._restarts and report.state is State.HEALTHY
        if not is_back or not site.is_well():
            return ""
        said = [
            line
            for at_s, line in site.said
            if at_s >= self._at_s and line.startswith(f"{self.component} has ended")
        ]
        assert said, f"{self.component} ended, and the supervisor did not say so"
        return said[0].partition(": see")[0] + "; started again"


class Lasting(Injection):
    """Something that lasts for some seconds and is then taken back."""

    seconds: ClassVar[float]

    def inject(self, site: Site) -> str:
        """Begin it."""
        self._is_released = False
        hit = self.begin(site)
        self._until_s = time.monotonic() + self.seconds
        return hit

    @abstractmethod
    def begin(self, site: Site) -> str:
        """Begin it, and return what was hit."""

    @abstractmethod
    def end(self, site: Site) -> None:
        """Take it back."""

    @abstractmethod
    def after(self, site: Site) -> str:
        """Return what has happened once it is over, asked after its end; "" while it is not."""

    def over(self, site: Site) -> str:
        """Return what has happened, once it was taken back and all components are healthy."""
        if time.monotonic() < self._until_s:
            return ""
        self.release(site)
        return self.after(site) if site.is_well() else ""

    def release(self, site: Site) -> None:
        """Take it back, once."""
        if not getattr(self, "_is_released", True):
            self._is_released = True
            self.end(site)
