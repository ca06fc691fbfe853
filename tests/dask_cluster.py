"""A real Dask scheduler and real workers, as processes of their own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import distributed

ROOT = Path(__file__).parents[1]


@contextmanager
def scheduler(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Yield a scheduler, and its address."""
    file = folder / "scheduler.json"
    process = _started("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
                       "--scheduler-file", str(file))  # fmt: skip
    try:
        while not file.exists():
            assert process.poll() is None
            time.sleep(0.05)
        with distributed.Client(scheduler_file=str(file), set_as_default=False) as client:
            address = str(client.scheduler_info()["address"])
        yield process, address
    finally:
        process.kill()
        process.wait()


@contextmanager
def workers(address: str, folder: Path, count: int = 2) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Yield workers of one thread without nannies; those that are added to the list end, too."""
    found = [start_worker(address, folder) for _ in range(count)]
    try:
        yield found
    finally:
        for process in found:
            process.kill()
            process.wait()


def start_worker(address: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start a worker of one thread: what is killed stays dead."""
    options = ["--no-nanny", "--no-dashboard", "--nthreads", "1", "--local-directory", str(folder)]
    return _started("worker", address, *options)


def _started(*words: str) -> subprocess.Popen[bytes]:
    nowhere = subprocess.DEVNULL
    command = [sys.executable, "-m", f"distributed.cli.dask_{words[0]}", *words[1:]]
    return subprocess.Popen(command, cwd=ROOT, stdout=nowhere, stderr=nowhere)
