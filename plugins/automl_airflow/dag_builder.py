"""Builds the DAGs: one for any study from the form, and one per study file."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable

from automl_airflow.form import form_params
from automl_airflow.operator import StepOperator
from automl_airflow.pools import CPU_POOL, GPU_POOL
from automl_airflow.study_files import StudyFile

GPU_QUEUE = "gpu"
_DEFAULTS = {
    "retries": 2,
    "retry_delay": timedelta(seconds=10),
    "weight_rule": "upstream",  # in a shared pool a final fit goes before searches
}
_GPU = {"pool": GPU_POOL, "queue": GPU_QUEUE}
_CPU = {"pool": CPU_POOL}


def search_dag(studies: Path) -> DAG:
    """Return the DAG that runs any study from the trigger form.

    Args:
        studies: folder of the study files, whose names the form may not use.
    """
    dag = DAG(
        dag_id="automl_search",
        description="Search for a model, from the trigger form",
        schedule=None,
        catchup=False,
        is_paused_upon_creation=False,
        params=form_params(),
        default_args=_DEFAULTS,
        tags=["automl"],
    )
    with dag:
        _wire(study_file=None, studies=str(studies))
    return dag


def study_dag(file: StudyFile) -> DAG:
    """Return the DAG of a study file; a broken one has no schedule and a `check` that says why."""
    spec = file.spec
    schedule = None
    if spec is not None and spec.schedule is not None:
        # no start date: a study does not make up for runs from before it appeared
        schedule = CronTriggerTimetable(
            spec.schedule, timezone=spec.timezone, run_immediately=False
        )
    priority = 1 if spec is None else spec.search.priority
    dag = DAG(
        dag_id=file.dag_id,
        description=f"The study in {file.path.name}",
        schedule=schedule,
        catchup=False,
        max_active_runs=1,  # runs of one study never overlap
        is_paused_upon_creation=False,
        default_args={**_DEFAULTS, "priority_weight": priority},
        tags=["automl", "study"],
    )
    with dag:
        if spec is None:
            StepOperator(
                task_id="check", step="check", study_file=str(file.path), problems=file.problems
            )
        else:
            _wire(study_file=str(file.path), studies=None)
    return dag


def _wire(*, study_file: str | None, studies: str | None) -> None:
    """Add the tasks of a search to the DAG of the surrounding `with`."""

    def task(step: str, **settings: Any) -> StepOperator:
        return StepOperator(task_id=step, step=step, study_file=study_file, **settings)

    prepare = task("prepare", **_CPU)
    open_run = task("open_run", prepared=prepare.output)
    search = StepOperator.partial(
        task_id="search",
        step="run_worker",
        study_file=study_file,
        map_index_template="{{ trial_label }}",
        **_GPU,
    ).expand(worker=open_run.output)
    choose = task("choose", trigger_rule="all_done")  # the log decides
    task("check", studies=studies) >> prepare >> open_run >> search >> choose
    final_fit = task("final_fit", **_GPU)
    export, evaluate = task("export", **_CPU), task("evaluate", **_CPU)
    choose >> final_fit >> export >> evaluate >> task("promote")
