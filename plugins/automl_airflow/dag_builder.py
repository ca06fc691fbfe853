"""DAGs: one for any study from the form, and one per study file."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, XComArg, get_parsing_context

from automl.domain.specification import MOST_WORKERS, StudySpec
from automl.steps.call import Need
from automl.steps.specs import PIPELINE, Pool, Queue, StepSpec, Trigger
from automl_airflow.dag_record import remember, unknown_study
from automl_airflow.form import form_params
from automl_airflow.operator import StepOperator
from automl_airflow.pods import executor_config
from automl_airflow.pools import NAMES, QUEUES
from automl_airflow.study_files import NIGHTLY, StudyFile, read_study_files

_LEAST_ACTIVE_TASKS = 16  # Airflow's own default
# A DAG without runs fires its last time if that is no longer ago: the scheduler may take so long
# for its first run. False, against its description in Airflow 3.3.2, means a tenth of the
# interval: a nightly study that appears two hours late would run at once.
_ON_TIME = timedelta(minutes=1)
_LONGEST_DESCRIPTION = 1000  # characters that Airflow's database keeps of a schedule's description
# Trouble and deaths of children wait without a retry. These are for what Airflow itself counts: a
# task whose own process, worker or machine is lost, which it notices after five minutes.
_RETRIES = 2
_RETRIES_OF_WORKERS = 20  # a worker that is lost once in five minutes for a whole search of 2 h
DEFAULT_ARGS = {
    "retries": _RETRIES,
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
        default_args=DEFAULT_ARGS,
        tags=["automl"],
    )
    with dag:
        wire(Wiring(studies=str(studies)))
    return dag


def study_dags(folder: Path) -> list[DAG]:
    """Return the DAGs of the study files in `folder`, and of those whose file went while they ran.

    In the process of a task this is that task's DAG alone, which is there whatever became of its
    file: its run goes on by what `check` has stored.
    """
    files = read_study_files(folder)
    wanted = get_parsing_context()
    if wanted.task_id is None or wanted.dag_id is None:
        return [study_dag(file) for file in remember(files, folder)]
    found = [file for file in files if file.dag_id == wanted.dag_id]
    return [study_dag(file) for file in found or [unknown_study(wanted.dag_id, folder)]]


def study_dag(file: StudyFile) -> DAG:
    """Return the DAG of a study file; of a broken one, `check` says what is wrong.

    A broken file's DAG has the same tasks, so that a run which is under way goes on.
    """
    schedule, problems = _schedule(file)
    dag = DAG(
        dag_id=file.dag_id,
        description=f"The study in {Path(file.place).name}",
        schedule=schedule,
        catchup=False,
        max_active_runs=1,  # runs of one study never overlap
        max_active_tasks=_active_tasks(file.spec),
        is_paused_upon_creation=False,
        default_args={**DEFAULT_ARGS, "priority_weight": file.priority},
        tags=["automl", "study"],
    )
    with dag:
        wire(
            Wiring(
                study_file=file.place,
                problems=problems,
                on_cpu=bool(file.on_cpu),
                cpus=file.cpus,
            )
        )
    return dag


def _active_tasks(spec: StudySpec | None) -> int:
    """Return how many tasks of a run may be active at once: never fewer than it has workers."""
    return max(_LEAST_ACTIVE_TASKS, MOST_WORKERS if spec is None else spec.search.workers)


def _schedule(file: StudyFile) -> tuple[CronTriggerTimetable | None, list[str]]:
    """Return the schedule of a file's DAG, and the file's problems with those of the schedule."""
    problems = [_encodable(str(problem)) for problem in file.problems]
    if file.schedule is None:
        return None, problems
    try:
        _try_timetable(file.schedule, file.timezone)
    except Exception as error:  # noqa: BLE001 - of four libraries; it would stop every study
        problem = _encodable(f"schedule, timezone: Airflow cannot use them: {error}")
        return _timetable(NIGHTLY, "UTC"), [*problems, problem]
    return _timetable(file.schedule, file.timezone), problems


def _timetable(schedule: str, timezone: str) -> CronTriggerTimetable:
    # no start date: a study does not make up for runs from before it appeared
    return CronTriggerTimetable(schedule, timezone=timezone, run_immediately=_ON_TIME)


@cache
def _try_timetable(schedule: str, timezone: str) -> None:
    """Compute what the DAG processor will: it gives up the whole file if that fails for one DAG."""
    from airflow.timetables.base import TimeRestriction
    from airflow.timetables.trigger import CronTriggerTimetable as Trial

    trial = Trial(schedule, timezone=timezone, run_immediately=_ON_TIME)
    trial.validate()
    trial.next_dagrun_info(
        last_automated_data_interval=None,
        restriction=TimeRestriction(earliest=None, latest=None, catchup=False),
    )
    if len(trial.description) > _LONGEST_DESCRIPTION:
        raise ValueError(f"the description of {schedule!r} is too long")


def _encodable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


@dataclass(frozen=True, slots=True)
class Wiring:
    """Study that the tasks of a search are made for; with nothing of it, the form's.

    Attributes:
        study_file: path of its study file.
        document: its specification as a mapping, instead of a file.
        studies: folder of the study files, whose names the form may not use.
        problems: what is known to be wrong with it.
        on_cpu: whether it asks for no GPU.
        cpus: how many CPUs a training asks for; None leaves that to the machine.
    """

    study_file: str | None = None
    document: Mapping[str, Any] | None = None
    studies: str | None = None
    problems: Sequence[str] = ()
    on_cpu: bool = False
    cpus: int | None = None


def wire(study: Wiring) -> None:
    """Add the tasks of a search to the surrounding `with`, one after the other."""
    outputs: dict[str, XComArg] = {}
    for each in PIPELINE:
        step = without_gpu(each) if study.on_cpu else each
        outputs[step.name] = _task(step, outputs, study)
    for before, after in itertools.pairwise(outputs.values()):
        before >> after
    for step in PIPELINE:
        if step.trigger is Trigger.ALL_DONE_IF_OPENED:
            outputs["open_run"] >> outputs[step.name]


def without_gpu(step: StepSpec) -> StepSpec:
    """Return the step as one that waits for no GPU."""
    if step.pool is not Pool.GPU:
        return step
    return replace(step, pool=Pool.CPU, queue=Queue.DEFAULT)


def _task(step: StepSpec, outputs: Mapping[str, XComArg], study: Wiring) -> XComArg:
    """Add the task of a step and return its output; `outputs` are those of the steps before."""
    settings: dict[str, Any] = {
        "task_id": step.task,
        "step": step.name,
        "study_file": study.study_file,
        "trigger_rule": step.trigger.value,
    }
    if step.pool in NAMES:
        settings["pool"] = NAMES[step.pool]
    if step.queue in QUEUES:
        settings["queue"] = QUEUES[step.queue]
    pod = executor_config(step, study.cpus, os.environ)
    if pod is not None:
        settings["executor_config"] = pod
    if step.name == "check":
        settings["studies"] = study.studies
        settings["document"] = study.document
        settings["problems"] = study.problems
    else:
        settings["checked"] = outputs["check"]
    if Need.SNAPSHOT in step.needs:
        settings["prepared"] = outputs["prepare"]
    if not step.is_mapped:
        return StepOperator(**settings).output
    settings["retries"] = _RETRIES_OF_WORKERS
    mapped = StepOperator.partial(map_index_template="{{ trial_label }}", **settings)
    return mapped.expand(worker=outputs["open_run"]).output
