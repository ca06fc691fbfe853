"""Airflow's scheduler, which writes down how long each turn of its loop takes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LOOP = "scheduler.scheduler_loop_duration"  # the timer that Airflow has around a turn


def note_loops(path: Path) -> None:
    """Let each turn of the loop add a line with its seconds to a file."""
    from airflow._shared.observability.metrics import stats

    given = stats.timer

    @contextmanager
    def timed(timer: Any) -> Iterator[Any]:
        began_s = time.perf_counter()
        with timer as inner:
            yield inner
        with path.open("a") as file:
            file.write(f"{time.perf_counter() - began_s:.6f}\n")

    def timer(stat: str | None = None, *arguments: Any, **options: Any) -> Any:
        found = given(stat, *arguments, **options)
        return timed(found) if stat == LOOP else found

    stats.timer = timer


def main() -> None:
    """Run the scheduler; the argument is the file of the loops."""
    from airflow.__main__ import main as airflow

    note_loops(Path(sys.argv[1]))
    sys.argv[1:] = ["scheduler"]
    airflow()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
