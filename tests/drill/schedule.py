"""Schedule of a drill: which injections come when, drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.drill import deaths, troubles
from tests.drill.injection import Injection

KINDS: tuple[type[Injection], ...] = (
    deaths.KilledTraining,
    deaths.KilledCeleryWorker,
    deaths.KilledScheduler,
    deaths.KilledDagProcessor,
    deaths.KilledApiServer,
    deaths.KilledTriggerer,
    deaths.KilledDaskWorker,
    deaths.RestartedPostgres,
    deaths.RestartedValkey,
    deaths.RestartedSeaweed,
    deaths.Evicted,
    deaths.EvictedStep,
    troubles.StoreAway,
    troubles.FullDisk,
    troubles.SkewedClock,
    troubles.Zombie,
    troubles.BrokenFile,
    troubles.ExpiredToken,
    troubles.Starvation,
)
RARE = (troubles.SkewedClock, troubles.Zombie, troubles.ExpiredToken)  # minutes each: once
_PAUSE_S = (1.0, 6.0)


@dataclass(frozen=True, slots=True)
class Planned:
    """An injection, and the pause before it.

    Attributes:
        kind: the injection.
        seed: of what it chooses.
        pause_s: seconds since the one before was over.
    """

    kind: type[Injection]
    seed: int
    pause_s: float


def draw(seed: int, number: int, kinds: Sequence[type[Injection]] = KINDS) -> list[Planned]:
    """Return a schedule: each kind at least once if there is room, the others drawn, all mixed."""
    rng = random.Random(seed)  # noqa: S311 - a seeded schedule is the point
    common = [kind for kind in kinds if kind not in RARE] or list(kinds)
    chosen = rng.sample(kinds, min(number, len(kinds)))
    chosen += rng.choices(common, k=number - len(chosen))
    rng.shuffle(chosen)
    return [Planned(kind, rng.getrandbits(32), rng.uniform(*_PAUSE_S)) for kind in chosen]
