"""Work on many rows: in this process, or spread over Dask workers."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from automl.data.cluster import local_client, remote_client, remove_abandoned
from automl.data.files import OnProgress
from automl.errors import StorageError

if TYPE_CHECKING:
    import distributed

Task = TypeVar("Task")
Result = TypeVar("Result")

_FEW = 4  # tasks that are done sooner than processes for them have started
_WORKERS_S = 60.0  # for a cluster to have a worker, at the beginning and after it has lost all
_LOOK_S, _ASK_S = 5.0, 0.2  # whether there are workers: while they work, and while there are none


class Runner(Protocol):
    """Runs functions and reports how far they are."""

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
            function: of a module, since it may be pickled, as may the tasks and the results.
            tasks: its arguments.
            total: rows in all.
            what: happens to them, for people.

        Raises:
            StorageError: workers are lost, or there are none.
        """


@contextmanager
def open_workers(
    processes: int,
    on_progress: OnProgress,
    bound_to_parent: Callable[[list[str]], list[str]] = list,
) -> Iterator[Runner]:
    """Yield the cluster at DASK_SCHEDULER_ADDRESS, or else this process and others beside it.

    Args:
        processes: how many may work on this machine at once.
        on_progress: told the rows done, the rows in all, and what happens to them.
        bound_to_parent: makes of a command one that dies with this process.

    Raises:
        StorageError: no scheduler answers at the address.
    """
    with ExitStack() as stack:
        address = os.environ.get("DASK_SCHEDULER_ADDRESS")
        if address:
            yield Workers(stack.enter_context(remote_client(address)), on_progress)
        else:
            remove_abandoned()
            yield LocalWorkers(processes, on_progress, bound_to_parent, stack)


@dataclass(frozen=True, slots=True)
class LocalWorkers:
    """Runs functions on this machine: few tasks in this process, many in processes of their own.

    Attributes:
        processes: how many there may be.
        on_progress: told the rows done, the rows in all, and what happens to them.
        bound_to_parent: makes of a command one that dies with this process.
        stack: ends the processes.
    """

    processes: int
    on_progress: OnProgress
    bound_to_parent: Callable[[list[str]], list[str]]
    stack: ExitStack
    _clients: list[distributed.Client] = field(default_factory=list)

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Iterator[tuple[Task, int]],
        *,
        total: int,
        what: str,
    ) -> list[Result]:
        """Return the results in the order of `tasks`; see `Runner.map`."""
        first = list(islice(tasks, _FEW + 1))
        if self.processes == 1 or (len(first) <= _FEW and not self._clients):
            return self._map_here(function, chain(first, tasks), total, what)
        if not self._clients:
            cluster = local_client(self.processes, self.bound_to_parent)
            self._clients.append(self.stack.enter_context(cluster))
        workers = Workers(self._clients[0], self.on_progress)
        return workers.map(function, chain(first, tasks), total=total, what=what)

    def _map_here(
        self,
        function: Callable[[Task], Result],
        tasks: Iterator[tuple[Task, int]],
        total: int,
        what: str,
    ) -> list[Result]:
        done, results = 0, []
        self.on_progress(done, total, what)
        for task, rows in tasks:
            results.append(function(task))
            done += rows
            self.on_progress(done, total, what)
        return results


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
        """Return the results in the order of `tasks`; see `Runner.map`.

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
