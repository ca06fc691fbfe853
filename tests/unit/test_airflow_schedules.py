"""Every schedule that a study file may have is one that Airflow can compute with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import random
from automl.domain.cron import check_cron
from automl_airflow.dag_builder import _try_timetable

rng = random.Random(1)
FIELDS = [(0, 59, ""), (0, 23, ""), (1, 31, ""), (1, 12, "jan feb dec"), (0, 7, "sun mon sat")]

def value(low, high, names):
    number = rng.choice([str(rng.randint(low, high)), f"{rng.randint(low, high):02d}"])
    return rng.choice([number, number, *names.split()])

def term(*field):
    text = rng.choice(["*", "*", value(*field), f"{value(*field)}-{value(*field)}"])
    return text + rng.choice(["", "", f"/{rng.choice([1, 2, 7, 90, 10**30])}"])

tried = 0
for _ in range(3000):
    cron = " ".join(",".join(term(*f) for _ in range(rng.choice([1, 1, 1, 3]))) for f in FIELDS)
    try:
        check_cron(cron)
    except ValueError:
        continue
    tried += 1
    _try_timetable(cron, rng.choice(["UTC", "Europe/Berlin", "Asia/Kathmandu"]))
print(tried)
"""


def test_what_is_accepted_as_a_schedule_airflow_can_compute(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.splitlines()[-1]) > 100
