"""DAGs: one for any study from the form, and one per study file."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, XComArg

from automl.domain.specification import MOST_WORKERS, StudySpec
from automl.steps.call import Need
from automl.steps.specs import PIPELINE, Pool, Queue, StepSpec
from automl_airflow.form import form_params
from automl_airflow.operator import StepOperator
from automl_airflow.pools import NAMES
from automl_airflow.study_files import StudyFile

QUEUES = {Queue.GPU: "gpu"}  # the default queue is the executor's own
_LEAST_ACTIVE_TASKS = 16  # Airflow's own default
_DEFAULTS = {
    "retries": 2,
    "retry_delay": timedelta(seconds=10),
    "weight_rule": "upstream",  # in a shared pool a final fit goes before searches
}


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
        max_active_tasks=MOST_WORKERS,  # of a run; else Airflow holds workers back
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
        max_active_tasks=_active_tasks(spec),
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
            _wire(study_file=str(file.path), studies=None, on_cpu=trains_on_cpu(spec))
    return dag


def _active_tasks(spec: StudySpec | None) -> int:
    """Return how many tasks of a run may be active at once: never fewer than it has workers."""
    return max(_LEAST_ACTIVE_TASKS, MOST_WORKERS if spec is None else spec.search.workers)


def trains_on_cpu(spec: StudySpec | None) -> bool:
    """Return whether a study asks for no GPU, and so takes no slot and no machine that has one."""
    return spec is not None and spec.search.resources.gpus == 0


def _wire(*, study_file: str | None, studies: str | None, on_cpu: bool = False) -> None:
    """Add the tasks of a search to the DAG of the surrounding `with`, one after the other."""
    outputs: dict[str, XComArg] = {}
    for each in PIPELINE:
        step = without_gpu(each) if on_cpu else each
        outputs[step.name] = _task(step, outputs, study_file=study_file, studies=studies)
    for before, after in itertools.pairwise(outputs.values()):
        before >> after


def without_gpu(step: StepSpec) -> StepSpec:
    """Return the step as one that waits for no GPU."""
    if step.pool is not Pool.GPU:
        return step
    return replace(step, pool=Pool.CPU, queue=Queue.DEFAULT)


def _task(
    step: StepSpec,
    outputs: Mapping[str, XComArg],
    *,
    study_file: str | None,
    studies: str | None,
) -> XComArg:
    """Add the task of a step and return its output; `outputs` are those of the steps before."""
    settings: dict[str, Any] = {
        "task_id": step.task,
        "step": step.name,
        "study_file": study_file,
        "trigger_rule": step.trigger.value,
    }
    if step.pool in NAMES:
        settings["pool"] = NAMES[step.pool]
    if step.queue in QUEUES:
        settings["queue"] = QUEUES[step.queue]
    if step.name == "check":
        settings["studies"] = studies
    else:
        settings["checked"] = outputs["check"]
    if Need.SNAPSHOT in step.needs:
        settings["prepared"] = outputs["prepare"]
    if not step.is_mapped:
        return StepOperator(**settings).output
    mapped = StepOperator.partial(map_index_template="{{ trial_label }}", **settings)
    return mapped.expand(worker=outputs["open_run"]).output
