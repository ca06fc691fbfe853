"""Processes that want to write the same thing at once, round after round.

`python -m tests.contention CONTEST` starts them, CONTEST being JSON, in the environment that names
the home, and prints for each round which of them were told that they had won.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path

from automl.domain.events import TrialOpened
from automl.domain.settings import Settings
from automl.errors import PreconditionFailedError, StaleWriteError
from automl.storage.home import Home
from tests.homes import open_lax_home

STUDY = "digits"
WRITERS = 16
ROUNDS = 200
_WAIT_S = 120.0  # many processes on few cores
_LIMIT_S = 540.0


@dataclass(frozen=True)
class Contest:
    """What is wanted.

    Attributes:
        job: `append` a version, `create` an object, or `acquire` a lease.
        rounds: how many times.
    """

    job: str
    rounds: int


def contest(job: str, settings: Settings, rounds: int = ROUNDS) -> list[list[int]]:
    """Return the ranks of the winners of each round, in a home that is empty at first."""
    rounds = min(rounds, _most_rounds(settings))
    done = subprocess.run(
        [sys.executable, "-m", "tests.contention", json.dumps(asdict(Contest(job, rounds)))],
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIMIT_S,
        env=settings.child_environment(os.environ),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    winners: list[list[int]] = json.loads(done.stdout)
    assert len(winners) == rounds
    return winners


def _most_rounds(settings: Settings) -> int:
    """Return how often to compete: rounds on servers take long, most of them are for the soak."""
    if os.environ.get("AUTOML_SOAK"):
        return ROUNDS
    if settings.home.startswith("s3://"):
        return ROUNDS // 40
    return ROUNDS if settings.study_log is None else ROUNDS // 5


def _append(home: Home, rank: int, number: int) -> bool:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    ticket = TrialOpened(at=at, n=number, run="a", worker=str(rank))
    try:
        home.study_log(STUDY).append([ticket], expected_version=number - 1)
    except StaleWriteError:
        return False
    return True


def _create(home: Home, rank: int, number: int) -> bool:
    try:
        home.store.put_if_absent(f"race/{number}", str(rank).encode())
    except PreconditionFailedError:
        return False
    return True


def _acquire(home: Home, rank: int, number: int) -> bool:
    return home.leases(STUDY, ttl_s=3600).acquire(str(number), str(rank)) is not None


_JOBS: dict[str, Callable[[Home, int, int], bool]] = {
    "append": _append,
    "create": _create,
    "acquire": _acquire,
}


def _compete(wanted: Contest, rank: int, ready: Barrier, folder: Path) -> None:
    home, job = open_lax_home(Settings.from_environment()), _JOBS[wanted.job]
    won = []
    for number in range(wanted.rounds):
        ready.wait(_WAIT_S)
        if job(home, rank, number):
            won.append(number)
    (folder / str(rank)).write_text(json.dumps(won))


def main(wanted: Contest) -> None:
    """Run a contest and print the winners of each round."""
    settings = Settings.from_environment()
    if settings.home.startswith("s3://"):
        import boto3  # noqa: F401 - before the forks, for all of them
    if settings.study_log is not None:
        import psycopg  # noqa: F401
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(WRITERS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        processes = [
            context.Process(target=_compete, args=(wanted, rank, ready, folder))
            for rank in range(WRITERS)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * WRITERS
        won = [set(json.loads((folder / str(rank)).read_text())) for rank in range(WRITERS)]
    rounds = [
        [rank for rank in range(WRITERS) if number in won[rank]] for number in range(wanted.rounds)
    ]
    sys.stdout.write(json.dumps(rounds))


if __name__ == "__main__":
    main(Contest(**json.loads(sys.argv[1])))
