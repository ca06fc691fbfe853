"""Airflow's scheduler with a loop that takes ten seconds while a file exists; tests start it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from airflow.__main__ import main
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from sqlalchemy.orm import Session

LOOP_S = 10.0


def slow_down(while_there: Path) -> None:
    """Let each turn of the loop wait before it schedules anything, while a file exists."""
    schedule = SchedulerJobRunner._do_scheduling

    def late(self: SchedulerJobRunner, session: Session) -> int:
        if while_there.exists():
            time.sleep(LOOP_S)
        return schedule(self, session)

    SchedulerJobRunner._do_scheduling = late  # type: ignore[method-assign]


if __name__ == "__main__":
    slow_down(Path(sys.argv[1]))
    sys.argv[1:] = ["scheduler"]
    main()  # type: ignore[no-untyped-call]
