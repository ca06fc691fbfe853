"""Policy for task instances: what the trigger form and `search.resources` ask for comes true.

A DAG fixes pool, queue, priority and pod of its tasks, but the form's values come with each run.
And a DAG names numbers for its pods: what the executor understands is made of them here.
Airflow calls this hook for every task instance that the scheduler makes, those of other teams too:
it does nothing with these, and imports nothing for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow import settings
from airflow.policies import hookimpl

SEARCH_DAG = "automl_search"
_TRAINS = "automl_cpus"  # `pods.CPUS`, a module that others' tasks need not import
# Airflow 3.3.2 says so itself where it finds a module `airflow_local_settings`. For a policy from
# an entry point alone it would skip the hook when a run is made, all tasks but the mapped ones.
vars(settings.task_instance_mutation_hook).update(is_noop=False)


@hookimpl
def task_instance_mutation_hook(task_instance: Any, dag_run: Any) -> None:
    """Move a task to the CPUs, or weigh it, as the form of its run says, and give it its pod."""
    conf: Mapping[str, Any] = {}
    if task_instance.dag_id == SEARCH_DAG and dag_run is not None:
        conf = dag_run.conf if isinstance(dag_run.conf, Mapping) else {}
        _follow(task_instance, conf)
    config = getattr(task_instance, "executor_config", None)
    if isinstance(config, Mapping) and _TRAINS in config:
        from automl_airflow.pods import resolved

        task_instance.executor_config = resolved(config, conf)


def _follow(task_instance: Any, conf: Mapping[str, Any]) -> None:
    from airflow.configuration import conf as configuration

    from automl.steps.specs import Pool
    from automl_airflow.pools import NAMES

    if conf.get("resources_gpus") == 0 and task_instance.pool == NAMES[Pool.GPU]:
        task_instance.pool = NAMES[Pool.CPU]
        task_instance.queue = configuration.get("operators", "default_queue", fallback="default")
    priority, task = conf.get("priority"), getattr(task_instance, "task", None)
    if isinstance(priority, int) and priority > 1 and task is not None:
        # from the task's own weight: the hook is called more than once for an instance
        task_instance.priority_weight = _weight(task_instance) * priority


def _weight(task_instance: Any) -> int:
    from airflow.task.priority_strategy import validate_and_load_priority_weight_strategy

    rule = task_instance.task.weight_rule
    if not hasattr(rule, "get_weight"):
        rule = validate_and_load_priority_weight_strategy(rule)
    return int(rule.get_weight(task_instance))
