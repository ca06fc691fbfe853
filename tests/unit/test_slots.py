"""Slots of pools against the places of Celery's workers."""

from __future__ import annotations

from automl_airflow.slots import compare

QUEUES = {"automl_gpu": "gpu", "automl_cpu": "default"}


def places(**numbers: int) -> dict[frozenset[str], int]:
    return {frozenset({queue}): number for queue, number in numbers.items()}


def test_enough_places_are_no_matter() -> None:
    slots = {"automl_gpu": 2, "automl_cpu": -1}
    assert compare(slots, QUEUES, places(gpu=2, default=1)) == []
    assert compare({}, QUEUES, {}) == []


def test_more_slots_than_places_are_told_with_the_commands_that_mend_it() -> None:
    slots = {"automl_gpu": 4, "automl_cpu": 2}
    (warning,) = compare(slots, QUEUES, places(gpu=3, default=2))
    assert warning == (
        "The pool automl_gpu has 4 slots, but the workers of Celery's queue gpu run 3 tasks at "
        "once. A task that Celery has no place for fails after half an hour: "
        "`airflow pools set automl_gpu 3 AutoML`, or start workers with "
        "`airflow celery worker --queues gpu --concurrency 1`."
    )


def test_a_queue_that_nobody_serves_is_told() -> None:
    (warning,) = compare({"automl_gpu": 2}, QUEUES, places(default=2))
    assert "no worker serves Celery's queue gpu" in warning
    assert "pools set" not in warning


def test_a_worker_of_two_queues_has_its_places_once() -> None:
    slots = {"automl_gpu": 4, "automl_cpu": 4}
    both = frozenset({"gpu", "default"})
    (warning,) = compare(slots, QUEUES, {both: 6})
    assert warning == (
        "The pools automl_gpu and automl_cpu have 8 slots together, but the workers of Celery's "
        "queues default,gpu run 6 tasks at once. A task that Celery has no place for fails after "
        "half an hour: give the pools fewer slots (`airflow pools set`), or start workers with "
        "`airflow celery worker --queues default,gpu --concurrency 2`."
    )
    assert compare(slots, QUEUES, {both: 8}) == []


def test_workers_of_several_hosts_count_together() -> None:
    slots = {"automl_gpu": 4, "automl_cpu": 2}
    both = frozenset({"gpu", "default"})
    assert compare(slots, QUEUES, {both: 3, **places(gpu=3)}) == []
    assert "have 6 slots together" in compare(slots, QUEUES, {both: 3, **places(gpu=2)})[0]
