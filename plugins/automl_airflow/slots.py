"""Slots of pools against the places of Celery's workers, for `check` and `automl doctor`.

A task that has a slot of its pool is handed to Celery. If no worker has a place for it, it waits in
Celery's queue, where Airflow gives it up after half an hour; without a slot it waits for ever.
`python -m automl_airflow.slots` prints what is found of the Airflow whose settings it has.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from automl.errors import AutoMLError
from automl.steps.specs import Pool
from automl_airflow.celery_workers import places_of
from automl_airflow.pools import NAMES, QUEUES, check_pools, execution_api_url

_CELERY = "CeleryExecutor"


def examine_slots() -> list[str]:
    """Ask API server and workers, and return a warning for each pool with too many slots.

    Raises:
        ConfigError: pools are missing; each with the command that creates it.
        StorageError: the API server does not answer.
    """
    from airflow.sdk.configuration import conf

    slots = check_pools(execution_api_url(conf))
    if not slots or _CELERY not in str(conf.get("core", "executor")):
        return []  # without Celery a task waits for a place and for its slot alike
    queues = {
        NAMES[Pool.GPU]: next(iter(QUEUES.values())),
        NAMES[Pool.CPU]: str(conf.get("operators", "default_queue")),
    }
    try:
        places = places_of(str(conf.get("celery", "broker_url")), queues.values())
    except ConnectionError as error:
        return [f"{error}: whether they have a place for each slot of the pools is not known."]
    return compare(slots, queues, places)


def compare(
    slots: Mapping[str, int], queues: Mapping[str, str], places: Mapping[frozenset[str], int]
) -> list[str]:
    """Return a warning for each pool that has more slots than its queue's workers have places.

    Pools that have enough each may have too many together, where workers serve several queues.

    Args:
        slots: of each pool.
        queues: of each pool, the queue of its tasks.
        places: how many tasks workers run at once, by the queues that they serve.
    """
    warnings = []
    for pool, queue in queues.items():
        have = _places_for(places, [queue])
        if slots.get(pool, 0) <= have:  # -1 is no limit, and somebody's wish
            continue
        lack = (
            f"the workers of Celery's queue {queue} run {have} tasks at once"
            if have
            else f"no worker serves Celery's queue {queue}"
        )
        remedy = f"`airflow pools set {pool} {have} AutoML`, or " if have else ""
        warnings.append(
            f"The pool {pool} has {slots[pool]} slots, but {lack}. A task that Celery has no place "
            f"for fails after half an hour: {remedy}start workers with "
            f"`airflow celery worker --queues {queue} --concurrency {slots[pool] - have}`."
        )
    return warnings or _compare_all(slots, queues, places)


def _compare_all(
    slots: Mapping[str, int], queues: Mapping[str, str], places: Mapping[frozenset[str], int]
) -> list[str]:
    """Return a warning if all pools together have more slots than all workers have places."""
    wanted = sum(max(slots.get(pool, 0), 0) for pool in queues)
    have, names = _places_for(places, queues.values()), ",".join(sorted(set(queues.values())))
    if wanted <= have:
        return []
    return [
        f"The pools {' and '.join(queues)} have {wanted} slots together, but the workers of "
        f"Celery's queues {names} run {have} tasks at once. A task that Celery has no place for "
        "fails after half an hour: give the pools fewer slots (`airflow pools set`), or start "
        f"workers with `airflow celery worker --queues {names} --concurrency {wanted - have}`."
    ]


def _places_for(places: Mapping[frozenset[str], int], queues: Iterable[str]) -> int:
    """Return how many tasks the workers of some queues run at once."""
    asked = set(queues)
    return sum(number for served, number in places.items() if served & asked)


def _examined() -> dict[str, Any]:
    try:
        return {"warnings": examine_slots(), "error": None}
    except AutoMLError as error:
        problems = [str(problem) for problem in error.problems]
        return {"warnings": problems or [error.message], "error": error.hint}


if __name__ == "__main__":
    sys.stdout.write(f"{json.dumps(_examined())}\n")
