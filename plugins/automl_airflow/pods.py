"""Pods of tasks under the KubernetesExecutor: a template for each queue, and `search.resources`.

A DAG names templates and numbers alone, so that nothing that parses DAGs imports Kubernetes'
client. The policy turns them into what the executor reads, in the scheduler, which has the client
loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from automl.errors import ConfigError
from automl.steps.specs import Compute, Queue, StepSpec

TEMPLATES = "AUTOML_POD_TEMPLATES"  # a folder, at the same place wherever Airflow runs
CPUS = "automl_cpus"  # of trainings alone, and None where the template decides; executors ignore it
_FILES = {Queue.DEFAULT: "cpu.yaml", Queue.GPU: "gpu.yaml"}
_TEMPLATE, _OVERRIDE = "pod_template_file", "pod_override"  # the executor's own keys

log = logging.getLogger(__name__)


def executor_config(
    step: StepSpec, cpus: int | None, environment: Mapping[str, str]
) -> dict[str, Any] | None:
    """Return how the pod of a step's task is made; None where nobody has set templates.

    Args:
        step: the step, with the queue that it really has.
        cpus: `search.resources.cpus` of the study.
        environment: that of the process that makes the DAG.

    Raises:
        ConfigError: the folder of templates is relative.
    """
    folder = environment.get(TEMPLATES, "")
    if not folder:
        return None
    if not Path(folder).is_absolute():
        raise ConfigError(f"{TEMPLATES} is {folder!r}.", "use an absolute folder")
    config: dict[str, Any] = {_TEMPLATE: str(Path(folder, _FILES[step.queue]))}
    if step.device is not Compute.NONE:
        config[CPUS] = cpus
    return config


def resolved(config: Mapping[str, Any], conf: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a training with what the executor understands.

    The override of the template's pod repeats its other resources: the executor replaces all of
    them by those of an override. A template that cannot be read is left to the executor, which
    names it.

    Args:
        config: what `executor_config` returned, or this function: it may be called again.
        conf: what the form of the run says, which goes before the study's own words.
    """
    changed = {key: value for key, value in config.items() if key != _OVERRIDE}
    template = Path(changed[_TEMPLATE])
    if conf.get("resources_gpus") == 0:
        template = template.with_name(_FILES[Queue.DEFAULT])
    cpus = conf.get("resources_cpus")
    changed |= {_TEMPLATE: str(template)} | ({CPUS: cpus} if isinstance(cpus, int) else {})
    if changed[CPUS] is None:
        return changed
    try:
        return {**changed, _OVERRIDE: _override(template, changed[CPUS])}
    except (ImportError, OSError, LookupError, AttributeError, TypeError, ValueError) as error:
        log.warning("Its pod is made by %s as it is, without CPUs of its own: %r", template, error)
        return changed


def _override(template: Path, cpus: int) -> Any:
    """Return the pod whose first container has the template's resources, but for its CPUs."""
    import yaml
    from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator

    try:
        document = yaml.safe_load(template.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{template} is no YAML") from error
    container = document["spec"]["containers"][0]
    resources = dict(container.get("resources") or {})
    for kind in ("limits", "requests"):
        resources[kind] = {**(resources.get(kind) or {}), "cpu": str(cpus)}
    spec = {"containers": [{"name": container["name"], "resources": resources}]}
    return PodGenerator.deserialize_model_dict({"spec": spec})
