"""Work on many rows, spread over Dask workers."""

from __future__ import annotations

import logging
import os
import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from automl.data.files import OnProgress
from automl.errors import StorageError

if TYPE_CHECKING:
    import distributed

Task = TypeVar("Task")
Result = TypeVar("Result")

_WORKERS_S = 60.0  # for a cluster to have a worker, at the beginning and after it has lost all
_LOOK_S, _ASK_S = 5.0, 0.2  # whether there are workers: while they work, and while there are none


@dataclass(frozen=True, slots=True)
class Workers:
    """Runs functions on Dask workers and reports how far they are.

    What a worker had to do that is lost, another one does.

    Attributes:
        client: of the cluster.
        on_progress: told the rows done, the rows in all, and what happens to them.
        patience_s: for how long the cluster may be without any worker.
    """

    client: distributed.Client
    on_progress: OnProgress
    patience_s: float = _WORKERS_S

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

        Raises:
            StorageError: the cluster has no worker, loses one task after another, or is away.
        """
        with _errors_of_dask(what):
            return self._map(function, tasks, total, what)

    def _map(
        self,
        function: Callable[[Task], Result],
        tasks: Iterator[tuple[Task, int]],
        total: int,
        what: str,
    ) -> list[Result]:

        limit = 2 * self._threads()
        results: dict[int, Result] = {}
        running: dict[distributed.Future[Result], tuple[int, int]] = {}
        numbered = enumerate(tasks)
        done = 0
        self.on_progress(done, total, what)
        while True:
            for number, (task, rows) in islice(numbered, limit - len(running)):
                # It goes with the call, since what a worker alone holds is lost with it; and as
                # bytes, which the scheduler need not understand.
                call = pickle.dumps((function, task))
                running[self.client.submit(_call, call, pure=False)] = (number, rows)
            if not running:
                return [results[number] for number in sorted(results)]
            for future in self._finished(list(running)):
                number, rows = running.pop(future)
                results[number] = future.result()
                done += rows
                self.on_progress(done, total, what)

    def _finished(
        self, running: list[distributed.Future[Result]]
    ) -> set[distributed.Future[Result]]:
        """Return the tasks that are done, once there are any."""
        import distributed

        while True:
            try:
                with self.client.as_current():
                    found = distributed.wait(running, _LOOK_S, return_when="FIRST_COMPLETED")
                return set(found.done)
            except TimeoutError:
                self._threads()

    def _threads(self) -> int:
        """Return how many tasks the cluster runs at once, when it has any worker.

        Raises:
            StorageError: it has none in time.
        """
        limit_s = time.monotonic() + self.patience_s
        while True:
            threads: dict[str, int] = self.client.nthreads()
            if threads:
                return sum(threads.values())
            if time.monotonic() > limit_s:
                raise StorageError(
                    f"The Dask scheduler has had no workers for {self.patience_s:g} s.",
                    "start `dask worker` with its address, or unset DASK_SCHEDULER_ADDRESS",
                )
            time.sleep(_ASK_S)


@contextmanager
def _errors_of_dask(what: str) -> Iterator[None]:
    """Turn errors of Dask into the platform's."""
    from distributed.comm.core import CommClosedError
    from distributed.scheduler import KilledWorker

    try:
        yield
    except KilledWorker as error:
        raise StorageError(
            f"{what}: Dask workers died again and again with the same rows.",
            "look into the workers' logs; signal 9 is usually the lack of memory",
        ) from error
    except (CommClosedError, CancelledError) as error:
        raise StorageError(
            f"{what}: the Dask scheduler is lost: {error}.", "look after it, and run it again"
        ) from error
    except RuntimeError as error:
        if "deserialization" not in str(error):
            raise
        raise StorageError(
            f"{what}: the Dask scheduler does not know this package.",
            "install the same version of it there and for the workers",
        ) from error


def _call(pickled: bytes) -> Any:
    """Call a function on a worker."""
    function, task = pickle.loads(pickled)  # noqa: S301 - this package's own
    return function(task)


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
