"""A run that fails for good under a real Airflow, and the next one."""

from __future__ import annotations

from pathlib import Path

from automl_airflow.local import LocalAirflow
from automl_airflow.operator import run_name

from automl.domain.events import RunState
from automl.domain.settings import Settings
from automl.runs.run_lease import is_run_alive
from automl.storage.open import open_home
from automl.tracks.image.facts import SPACE_VERSION
from automl.tracks.image.spending import FULL_BUDGET
from automl.views.library import Library

DAG_ID, STUDY = "automl_search", "hasty"


def test_a_run_that_fails_for_good_is_closed_and_the_next_need_not_wait(
    airflow: LocalAirflow, digits: Path, home: Path
) -> None:
    conf = {
        "name": STUDY,
        "source": str(digits / "train.csv"),
        "images": str(digits / "images"),
        "time_limit": "5s",  # no trial starts so late
        "workers": 1,
    }

    runs = []
    for _ in range(2):
        run_id = airflow.client.trigger(DAG_ID, conf)
        assert airflow.client.wait(DAG_ID, run_id, 600) == "failed"
        runs.append(run_name(DAG_ID, run_id))
        tries = {t["task_id"]: t["try_number"] for t in airflow.client.tasks(DAG_ID, run_id)}
        assert (tries["open_run"], tries["choose"]) == (1, 1)  # a busy study would cost a retry
        assert not is_run_alive(open_home(Settings(str(home))), STUDY)

    study = Library(open_home(Settings(str(home)))).study(STUDY)
    assert [(run.name, run.state) for run in study.runs] == [
        (name, RunState.FAILED) for name in runs
    ]
    assert all(
        run.cause.startswith(f"choose: No trial of study {STUDY} has completed.")
        for run in study.runs
    )
    facts = study.runs[0].space
    assert facts is not None
    space = facts.recorded
    assert {"image_size": 8, "classes": 10, "version": SPACE_VERSION}.items() <= space.items()
    assert 1 <= int(space["epochs"]) <= FULL_BUDGET.epochs  # for which there would have been time
    assert study.runs[1].snapshot == study.runs[0].snapshot
