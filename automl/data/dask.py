"""Work on many rows, spread over Dask workers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from automl.data.files import OnProgress
from automl.errors import StorageError

if TYPE_CHECKING:
    import distributed

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Workers:
    """Runs functions on Dask workers and reports how far they are.

    Attributes:
        client: of the cluster.
        on_progress: told the rows done, the rows in all, and what happens to them.
    """

    client: distributed.Client
    on_progress: OnProgress

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Iterator[tuple[Task, int]],
        *,
        total: int,
        what: str,
    ) -> list[Result]:
        """Return the results in the order of `tasks`, which are pairs of a task and its rows.

        Few tasks are held at a time, so a large dataset never lies in memory as a whole.

        Args:
            function: of a module, since it is pickled, as are the tasks and the results.
            tasks: its arguments.
            total: rows in all.
            what: happens to them, for people.
        """
        import distributed

        limit = 2 * max(sum(self.client.nthreads().values()), 1)
        results: dict[int, Result] = {}
        running: dict[distributed.Future[Result], tuple[int, int]] = {}
        numbered = enumerate(tasks)
        done = 0
        self.on_progress(done, total, what)
        while True:
            for number, (task, rows) in islice(numbered, limit - len(running)):
                sent = self.client.scatter(task, hash=False)
                running[self.client.submit(function, sent, pure=False)] = (number, rows)
            if not running:
                return [results[number] for number in sorted(results)]
            with self.client.as_current():
                finished = distributed.wait(list(running), return_when="FIRST_COMPLETED").done
            for future in finished:
                number, rows = running.pop(future)
                results[number] = future.result()
                done += rows
                self.on_progress(done, total, what)


@contextmanager
def local_client(threads: int) -> Iterator[distributed.Client]:
    """Yield a client of the cluster at DASK_SCHEDULER_ADDRESS, or else of threads in this process.

    Args:
        threads: how many there are in this process.

    Raises:
        StorageError: no scheduler answers at the address.
    """
    import distributed

    logging.getLogger("distributed").setLevel(logging.WARNING)  # its import sets INFO
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    if address:
        try:
            client: distributed.Client = distributed.Client(address, set_as_default=False)
        except (OSError, ValueError) as error:
            raise StorageError(
                f"DASK_SCHEDULER_ADDRESS is {address}, where no scheduler answers: {error}.",
                "start it, or unset the variable",
            ) from error
        with client:
            yield client
        return
    with (
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=threads,
            processes=False,
            dashboard_address="127.0.0.1:0",  # a free port: even without pages one is listened on
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client
