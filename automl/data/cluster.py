"""Dask clusters: one that runs elsewhere, or processes of this machine."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from automl.errors import ConfigError, StorageError

if TYPE_CHECKING:
    import distributed

TLS_HINT = (
    "set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT and "
    "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY"
)

_CLOSE_S = 5.0  # for a scheduler and its workers to end by themselves
_BREAK_OFF_S = 0.5  # for the scheduler, where its workers were killed
_SCRATCH = "automl-dask-"
_MALLOC = {  # of glibc, which would otherwise keep much of what large images took
    "MALLOC_TRIM_THRESHOLD_": str(2**24),  # free at the heap's end, which goes back to the kernel
    "MALLOC_MMAP_THRESHOLD_": str(2**22),  # a block; larger ones go back at once
}


def is_unprotected(address: str) -> bool:
    """Return whether what goes to a scheduler's address leaves this process's machine as it is.

    Args:
        address: as Dask takes it; without a scheme it is `tcp://`.
    """
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    if parts.scheme in {"tls", "wss", "inproc"}:
        return False
    try:
        return not ip_address(parts.hostname or "").is_loopback
    except ValueError:  # a name
        return parts.hostname != "localhost"


@contextmanager
def remote_client(address: str) -> Iterator[distributed.Client]:
    """Yield a client of the scheduler at an address.

    Raises:
        ConfigError: the address begins with `tls://`, and no certificate is set.
        StorageError: no scheduler answers there.
    """
    import distributed

    _quiet()
    try:
        client: distributed.Client = distributed.Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        raise StorageError(
            f"DASK_SCHEDULER_ADDRESS is {address}, where no scheduler answers: {error}.",
            "start it, or unset the variable",
        ) from error
    except TypeError as error:  # so Dask calls that
        raise ConfigError(
            f"DASK_SCHEDULER_ADDRESS is {address}, and no certificate is set.", TLS_HINT
        ) from error
    with client:
        yield client


@contextmanager
def local_client(
    processes: int, bound_to_parent: Callable[[list[str]], list[str]] = list
) -> Iterator[distributed.Client]:
    """Yield a client of a scheduler in this process and of workers in others.

    They are commands: a fork has the locks of this process's threads, and multiprocessing runs the
    caller's main module once more. An exception in the block kills them, whatever they do.

    Args:
        processes: how many workers there are, of one thread each.
        bound_to_parent: makes of a command one that dies with this process.
    """
    import distributed

    _quiet()
    with tempfile.TemporaryDirectory(prefix=_SCRATCH) as folder, _held(Path(folder)):
        cluster = distributed.LocalCluster(
            n_workers=0,
            processes=False,
            protocol="tcp://",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # a free port: even without pages one is listened on
            scheduler_kwargs={"dashboard": False, "local_directory": folder},
            silence_logs=logging.CRITICAL,
        )
        workers: list[subprocess.Popen[bytes]] = []
        client, close_s = None, _CLOSE_S
        try:
            command = bound_to_parent(_worker(cluster.scheduler_address, folder))
            for _ in range(processes):
                workers.append(subprocess.Popen(command, env=_environment()))
            client = distributed.Client(cluster, set_as_default=False)
            yield client
        except BaseException:
            _kill(workers)  # what they do may take minutes
            close_s = _BREAK_OFF_S
            raise
        finally:
            _end(client, cluster, close_s)
            _kill(workers)


def remove_abandoned() -> None:
    """Remove the folders of local workers whose process was killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        with suppress(OSError), _held(left):  # else it is in use, or somebody else's
            shutil.rmtree(left)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which the kernel frees when this process dies.

    Raises:
        OSError: another process holds it, or the folder cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _end(
    client: distributed.Client | None, cluster: distributed.LocalCluster, within_s: float
) -> None:
    """Close a client and its scheduler in this process."""
    with suppress(TimeoutError):
        if client is not None:
            client.close(timeout=within_s)
    with suppress(TimeoutError):
        cluster.close(timeout=within_s)


def _worker(address: str, folder: str) -> list[str]:
    """Return the command of a worker; it ends when its scheduler does."""
    options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0"]
    module = ["-m", "distributed.cli.dask_worker", address]
    return [sys.executable, *module, *options, "--local-directory", folder]


def _environment() -> dict[str, str]:
    """Return the environment of workers, whose C library gives back what large images took.

    What the environment says already holds. Dask's own bound of 64 KiB makes the kernel clear the
    pages of most images anew, which is a third of the time that they take.
    """
    return {**_MALLOC, **os.environ, "DASK_LOGGING__DISTRIBUTED": "error"}


def _kill(workers: Iterable[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.wait()


def _quiet() -> None:
    logging.getLogger("distributed").setLevel(logging.WARNING)  # its import sets INFO
