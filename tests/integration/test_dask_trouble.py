"""Trouble of a Dask cluster: workers and schedulers that die, or are not there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import distributed
import pytest

from automl.data.dask import Workers
from automl.errors import StorageError
from tests.dask_cluster import scheduler, workers
from tests.dask_tasks import fatal, slow_square

TASKS = 24


def silent(done: int, total: int, what: str) -> None:
    assert 0 <= done <= total, what


def tasks() -> Iterator[tuple[int, int]]:
    return ((number, 1) for number in range(TASKS))


def test_what_a_lost_worker_had_to_do_another_one_does(tmp_path: Path) -> None:
    with (
        scheduler(tmp_path) as (_, address),
        workers(address, tmp_path) as (first, _),
        distributed.Client(address, set_as_default=False) as client,
    ):
        client.wait_for_workers(2, timeout=60)

        def on_progress(done: int, total: int, what: str) -> None:
            silent(done, total, what)
            if done == TASKS // 3:
                first.kill()

        found = Workers(client, on_progress).map(slow_square, tasks(), total=TASKS, what="rows")

    assert found == [number * number for number in range(TASKS)]


def test_a_scheduler_without_workers_is_named(tmp_path: Path) -> None:
    with (
        scheduler(tmp_path) as (_, address),
        distributed.Client(address, set_as_default=False) as client,
        pytest.raises(StorageError, match=r"has had no workers for 0\.5 s.*start `dask worker`"),
    ):
        Workers(client, silent, patience_s=0.5).map(slow_square, tasks(), total=TASKS, what="rows")


def test_all_workers_may_die_while_they_work(tmp_path: Path) -> None:
    with (
        scheduler(tmp_path) as (_, address),
        workers(address, tmp_path) as both,
        distributed.Client(address, set_as_default=False) as client,
    ):
        client.wait_for_workers(2, timeout=60)

        def on_progress(done: int, total: int, what: str) -> None:
            if done == TASKS // 3:
                for process in both:
                    process.kill()

        with pytest.raises(StorageError, match="has had no workers"):
            Workers(client, on_progress, patience_s=0.5).map(
                slow_square, tasks(), total=TASKS, what="rows"
            )


def test_rows_that_kill_one_worker_after_the_other_are_told(tmp_path: Path) -> None:
    with (
        scheduler(tmp_path) as (_, address),
        workers(address, tmp_path, 6),
        distributed.Client(address, set_as_default=False) as client,
    ):
        client.wait_for_workers(6, timeout=60)
        with pytest.raises(StorageError, match="died again and again with the same rows"):
            Workers(client, silent).map(fatal, iter([(1, 1)]), total=1, what="rows")


def test_a_lost_scheduler_is_told(tmp_path: Path) -> None:
    with scheduler(tmp_path) as (process, address), workers(address, tmp_path):
        client = distributed.Client(address, set_as_default=False)
        try:
            client.wait_for_workers(2, timeout=60)
            threading.Timer(0.5, process.kill).start()
            with pytest.raises(StorageError) as caught:
                Workers(client, silent).map(slow_square, tasks(), total=TASKS, what="rows")
        finally:
            client.close(timeout=1)

    assert caught.value.retryable
    assert "scheduler" in caught.value.message
