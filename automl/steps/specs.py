"""The table of the pipeline's steps: what each one needs and holds, and how long it may take.

Every caller of a step (a process of its own, Airflow, a run on this machine) reads this table.
Importing this module is cheap: the function of a step is loaded when it is called.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import TypeAlias

from automl.domain.documents import JsonValue
from automl.domain.specification import StudySpec
from automl.errors import ConfigError
from automl.runs.context import StepContext
from automl.steps.call import Need, StepCall

StepFunction: TypeAlias = Callable[[StepContext, StepCall], JsonValue]


class Compute(Enum):
    """CPU threads and a GPU that a step holds while it runs."""

    NONE = "none"
    TRIAL = "trial"
    FINAL_FIT = "final_fit"


class Pool(Enum):
    """The kind of slots that a step takes one of."""

    DEFAULT = "default"
    CPU = "cpu"
    GPU = "gpu"


class Queue(Enum):
    """The kind of machine that a step runs on."""

    DEFAULT = "default"
    GPU = "gpu"


class Trigger(StrEnum):
    """The outcome of the steps before that lets a step begin."""

    ALL_SUCCESS = "all_success"
    ALL_DONE_IF_OPENED = "all_done_min_one_success"  # `open_run` stands before it as well


@dataclass(frozen=True, slots=True)
class Limit:
    """Limit of the time that the process of a step may take.

    Attributes:
        margin_s: seconds beyond the study's setting: to begin and to come to an end.
        setting: reads the setting that the limit follows; None if there is none.
    """

    margin_s: float
    setting: Callable[[StudySpec], timedelta] | None = None

    def seconds(self, spec: StudySpec) -> float:
        """Return the limit for a study."""
        set_s = 0.0 if self.setting is None else self.setting(spec).total_seconds()
        return set_s + self.margin_s


_MARGIN_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """Properties of a step that are known before it is called.

    Attributes:
        name: of the step.
        call: the function, as `module:name`.
        task: the step's name in the pipeline that people see; None outside of the pipeline.
        limit: how long its process may take.
        needs: optional keys of the payload that it needs.
        needs_run: whether it works on the open run, whose lease it then holds.
        begins_search: whether the search of a run that has failed begins anew once it is called.
        opens_run: whether the run need not be open yet.
        ends_run: whether the run is over once the step has failed for good.
        device: what it computes with.
        pool: slots that it takes one of.
        queue: machine that it runs on.
        trigger: when it begins.
        is_mapped: whether it runs once for each worker that the step before has returned.
    """

    name: str
    call: str
    task: str | None
    limit: Limit = Limit(_MARGIN_S)
    needs: frozenset[Need] = frozenset()
    needs_run: bool = True
    begins_search: bool = False
    opens_run: bool = False
    ends_run: bool = False
    device: Compute = Compute.NONE
    pool: Pool = Pool.DEFAULT
    queue: Queue = Queue.DEFAULT
    trigger: Trigger = Trigger.ALL_SUCCESS
    is_mapped: bool = False

    def load(self) -> StepFunction:
        """Return the step's function; this imports what the step computes with."""
        module, _, name = self.call.partition(":")
        function: StepFunction = getattr(importlib.import_module(module), name)
        return function


def _slice(spec: StudySpec) -> timedelta:
    return spec.search.slice


def _final_fit(spec: StudySpec) -> timedelta:
    return spec.final_fit.time_limit


_ALL = (
    StepSpec(name="check", task="check", call="automl.steps.check:step", needs_run=False),
    StepSpec(
        name="prepare",
        task="prepare",
        call="automl.steps.prepare:step",
        limit=Limit(6 * 3600.0),
        needs_run=False,
        pool=Pool.CPU,
    ),
    StepSpec(
        name="open_run",
        task="open_run",
        call="automl.steps.open_run:step",
        needs=frozenset({Need.SNAPSHOT}),
        begins_search=True,
        opens_run=True,
        ends_run=True,  # without it no later step runs
    ),
    StepSpec(
        name="run_worker",
        task="search",
        call="automl.steps.run_worker:step",
        limit=Limit(_MARGIN_S, _slice),
        needs=frozenset({Need.WORKER}),
        begins_search=True,
        device=Compute.TRIAL,
        pool=Pool.GPU,
        queue=Queue.GPU,
        is_mapped=True,
    ),
    StepSpec(
        name="choose",
        task="choose",
        call="automl.steps.choose:step",
        ends_run=True,
        trigger=Trigger.ALL_DONE_IF_OPENED,  # the log decides, not what became of the workers
    ),
    StepSpec(
        name="final_fit",
        task="final_fit",
        call="automl.steps.final_fit:step",
        limit=Limit(_MARGIN_S, _final_fit),
        ends_run=True,
        device=Compute.FINAL_FIT,
        pool=Pool.GPU,
        queue=Queue.GPU,
    ),
    StepSpec(
        name="export",
        task="export",
        call="automl.steps.export:step",
        limit=Limit(3600.0),
        ends_run=True,
        pool=Pool.CPU,
    ),
    StepSpec(
        name="evaluate",
        task="evaluate",
        call="automl.steps.evaluate:step",
        limit=Limit(3600.0),
        ends_run=True,
        pool=Pool.CPU,
    ),
    StepSpec(name="promote", task="promote", call="automl.steps.promote:step", ends_run=True),
    StepSpec(
        name="give_back",
        task=None,
        call="automl.steps.supervision:give_back_step",
        needs=frozenset({Need.WORKER}),
        needs_run=False,
    ),
    StepSpec(
        name="fail_run",
        task=None,
        call="automl.steps.supervision:fail_run_step",
        needs=frozenset({Need.CAUSE}),
        needs_run=False,  # it takes the lease itself, if there is a run to close
    ),
)

STEPS: Mapping[str, StepSpec] = MappingProxyType({spec.name: spec for spec in _ALL})
PIPELINE = tuple(spec for spec in _ALL if spec.task is not None)  # in order


def step_named(name: str) -> StepSpec:
    """Return the entry of a step.

    Raises:
        ConfigError: there is no such step.
    """
    if name not in STEPS:
        raise ConfigError(f"There is no step {name!r}.", f"use one of {', '.join(STEPS)}")
    return STEPS[name]
