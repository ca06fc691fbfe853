"""Production's shape on this machine, served as `make stack` does, and a night's studies on it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from automl_airflow import commands
from automl_airflow.stack import SOURCES_BUCKET, Stack
from automl_airflow.supervisor import Component, Supervisor

from automl.domain.settings import Settings
from automl.storage.open import open_home, open_store
from tests.digits import write_digits
from tests.nights import FORM_DAG, Line, Night, until

SLOTS = 2
SOURCE = f"s3://{SOURCES_BUCKET}/few.npz"
_ROWS = 200
_DAGS = Path(__file__).resolve().parents[1] / "dags"


@dataclass(frozen=True)
class StackNight:
    """A stack that serves, and its studies.

    Attributes:
        folder: of the stack; `commands.status` tells of it.
        stack: what serves; a thread of this process tends its components.
        night: its Airflow and home. What comes along its line is nothing.
        stopping: ends it, once it is set; `thread` has then ended, too.
        thread: serves.
    """

    folder: Path
    stack: Stack
    night: Night
    stopping: threading.Event
    thread: threading.Thread

    def stop(self) -> None:
        """End everything."""
        self.stopping.set()
        self.thread.join()


@contextmanager
def stack_night(
    folder: Path, env: Mapping[str, str], scheduler: Sequence[str] = ()
) -> Iterator[StackNight]:
    """Serve a stack of two GPU slots until the end of the block.

    Args:
        folder: for everything.
        env: more variables for Airflow.
        scheduler: the command of the scheduler, if it is another than Airflow's.
    """
    studies, few = folder / "studies", write_digits(folder / "few.npz", _ROWS)
    studies.mkdir()
    env = {
        "AUTOML_SOURCES": str(folder),
        "AUTOML_STUDIES": str(studies),
        "OMP_NUM_THREADS": "1",
        **env,
    }
    root, stopping, made = folder / "stack", threading.Event(), list[Stack]()
    root.mkdir()

    def make(root: Path, dags: Path, supervisor: Supervisor) -> Stack:
        made.append(Stack(root, dags, env, SLOTS, supervisor))
        if scheduler:
            _replace_scheduler(made[0], scheduler)
        return made[0]

    def serve() -> None:
        commands.serve("stack", root, _DAGS, stopping)

    with pytest.MonkeyPatch.context() as own:
        own.setitem(commands.SHAPES, "stack", commands.Shape("unused", "stack", make))
        thread = threading.Thread(target=serve, name="stack")
        thread.start()
        try:
            until(lambda: (root / "address.txt").exists() or not thread.is_alive(), "a stack")
            assert thread.is_alive(), "the stack did not start"
            stack = made[0]
            for variable, value in {**stack.settings, "AWS_PROFILE": "default"}.items():
                own.setenv(variable, value)
            with Line(stack.seaweedfs.endpoint) as line:
                open_store(f"s3://{SOURCES_BUCKET}").put("few.npz", few.read_bytes())
                home = open_home(Settings.from_environment(os.environ))
                night = Night(stack.airflow, home, line, few, studies)
                stack.airflow.client.wait_for_dag(FORM_DAG)
                yield StackNight(root, stack, night, stopping, thread)
        finally:
            stopping.set()
            thread.join()
            for stack in made:
                stack.postgres.remove()


def _replace_scheduler(stack: Stack, command: Sequence[str]) -> None:
    component = stack.airflow.component

    def other(*words: str) -> Component:
        found = component(*words)
        return replace(found, command=command) if words == ("scheduler",) else found

    stack.airflow.component = other  # type: ignore[method-assign]


def slow_scheduler(while_there: Path) -> list[str]:
    """Return the command of a scheduler whose loop is slow while a file is there."""
    return [sys.executable, "-m", "tests.slow_scheduler", str(while_there)]
