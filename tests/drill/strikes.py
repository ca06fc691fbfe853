"""Strikes: injections that were made, and what came of each."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.drill.injection import Cost, Injection
from tests.drill.site import Flight, Site

_POLL_S = 1.0


@dataclass(slots=True)
class Strike:
    """An injection that was made.

    Attributes:
        number: its place in the schedule, from 1.
        name: what it is called.
        cost: what it may cost.
        at_s: when it began, in seconds of the epoch.
        hit: what was hit.
        hit_s: when.
        happened: what was seen.
        seconds: until it was over.
        flights: the trials that were being trained.
        fault: what was wrong with it; "" if nothing was.
    """

    number: int
    name: str
    cost: Cost
    at_s: float
    hit: str = ""
    hit_s: float = float("inf")
    happened: str = ""
    seconds: float = 0.0
    flights: Sequence[Flight] = ()
    fault: str = ""


def say(words: str) -> None:
    """Print a line at once, with the time."""
    print(f"{time.strftime('%H:%M:%S')} {words}", flush=True)  # noqa: T201 - what people watch


def strike(
    site: Site, number: int, kind: type[Injection], seed: int = 0, idle_s: float = 0.0
) -> Strike:
    """Make an injection, and return what came of it when it was over.

    Args:
        site: what is hit.
        number: its place in the schedule, from 1.
        kind: the injection.
        seed: of what it chooses.
        idle_s: seconds in which a training must begin, which it waits for; 0 if none needs to.
    """
    injection = kind(random.Random(seed))  # noqa: S311 - drawn from the seed
    made = Strike(number, kind.name, kind.cost, time.time())
    try:
        made.flights = site.wait_for_flights(idle_s) if idle_s else site.flights()
        made.at_s = time.time()
        made.hit = injection.inject(site)
        made.hit_s = time.time()
        limit_s = time.monotonic() + kind.cost.within_s
        while not (happened := injection.over(site)):
            within_s = kind.cost.within_s
            assert time.monotonic() < limit_s, f"not over within {within_s:g} s"
            time.sleep(_POLL_S)
        made.happened = happened
    except Exception as error:  # noqa: BLE001 - a fault of this injection; the drill goes on
        made.fault = f"{type(error).__name__}: {error}".replace("\n", " ")
    finally:
        injection.release(site)
    made.seconds = time.time() - made.at_s
    say(f"{number} {made.name}: {made.hit}; {made.happened or made.fault}; {made.seconds:.0f} s")
    return made
