"""Slots of pools against the places of Celery's workers."""

from __future__ import annotations

from automl_airflow.slots import compare

QUEUES = {"automl_gpu": "gpu", "automl_cpu": "default"}


def test_enough_places_are_no_matter() -> None:
    slots = {"automl_gpu": 2, "automl_cpu": -1}
    assert compare(slots, QUEUES, {"gpu": 2, "default": 1}) == []
    assert compare({}, QUEUES, {"gpu": 0, "default": 0}) == []


def test_more_slots_than_places_are_told_with_the_commands_that_mend_it() -> None:
    slots = {"automl_gpu": 4, "automl_cpu": 2}
    (warning,) = compare(slots, QUEUES, {"gpu": 3, "default": 2})
    assert warning == (
        "The pool automl_gpu has 4 slots, but the workers of Celery's queue gpu run 3 tasks at "
        "once. A task that Celery has no place for fails after half an hour: "
        "`airflow pools set automl_gpu 3 AutoML`, or start workers with "
        "`airflow celery worker --queues gpu --concurrency 1`."
    )


def test_a_queue_that_nobody_serves_is_told() -> None:
    (warning,) = compare({"automl_gpu": 2}, QUEUES, {"gpu": 0, "default": 2})
    assert "no worker serves Celery's queue gpu" in warning
    assert "pools set" not in warning
