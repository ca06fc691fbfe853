"""The operator: runs a step in a process of its own and supervises it."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowRescheduleException,
)

from automl.domain.specification import StudySpec
from automl.errors import AutoMLError, ConfigError, Problem
from automl.machine.process import StepResult, run_step
from automl.steps.study_file import load_study_file
from automl_airflow.child import child_environment
from automl_airflow.form import refuse_unknown_keys, spec_from_params
from automl_airflow.pools import check_pools
from automl_airflow.study_files import owner_of

if TYPE_CHECKING:
    from airflow.sdk import Context

RESCHEDULE_S = 5  # less, and the scheduler may run an instance twice; see the design page
_MARGIN_S = 600.0
_LIMITS_S = {"check": 600.0, "prepare": 6 * 3600.0, "export": 3600.0, "evaluate": 3600.0}
_ENDING_THE_RUN = frozenset({"choose", "final_fit", "export", "evaluate", "promote"})
_NOT_IN_A_RUN = re.compile(r"[^A-Za-z0-9._-]")


def run_name(dag_id: str, run_id: str) -> str:
    """Return the run's name in the study log."""
    return _NOT_IN_A_RUN.sub("_", f"{dag_id}.{run_id}")


def time_limit_s(step: str, spec: StudySpec) -> float:
    """Return how long the process of `step` may take: its own limit, and time to come to an end."""
    if step == "run_worker":
        return spec.search.slice.total_seconds() + _MARGIN_S
    if step == "final_fit":
        return spec.final_fit.time_limit.total_seconds() + _MARGIN_S
    return _LIMITS_S.get(step, _MARGIN_S)


@dataclass(slots=True)
class _Call:
    """A call of a step: what it is given and how it is supervised."""

    payload: dict[str, Any]
    env: dict[str, str]
    on_line: Callable[[str], None]
    stop: Callable[[], bool]
    module: str

    def run(self, step: str, timeout_s: float) -> StepResult:
        return run_step(
            step,
            self.payload,
            env=self.env,
            timeout_s=timeout_s,
            on_line=self.on_line,
            stop=self.stop,
            module=self.module,
        )


class StepOperator(BaseOperator):
    """Runs one step of a study's run in a child process.

    Args:
        step: name of the step.
        study_file: path of the study file; None takes the specification from the form.
        worker: index of the worker, for `run_worker`.
        prepared: what `prepare` returned, for `open_run`.
        problems: what is known to be wrong; `check` fails with them.
        studies: folder of the study files, whose names the form may not use.
        module: the module that the child runs.
    """

    template_fields: Sequence[str] = ("study_file", "worker", "prepared")
    ui_color = "#dbeafe"

    def __init__(  # noqa: PLR0913 - an operator's constructor is its configuration
        self,
        *,
        step: str,
        study_file: str | None = None,
        worker: int | None = None,
        prepared: dict[str, Any] | None = None,
        problems: Sequence[str] = (),
        studies: str | None = None,
        module: str = "automl.steps",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.step = step
        self.study_file = study_file
        self.worker = worker
        self.prepared = prepared
        self.problems = list(problems)
        self.studies = studies
        self.module = module

    def execute(self, context: Context) -> Any:
        """Run the step and return its result."""
        self._stop = threading.Event()
        try:
            if self.step == "check":
                self._check(context)
            spec = self._spec(context)
            call = self._call(context, spec)
        except AutoMLError as error:
            raise _airflow_error(error) from error
        outcome = call.run(self.step, time_limit_s(self.step, spec))
        if self.step == "run_worker":
            return self._worker_outcome(context, call, outcome)
        failure = self._error(outcome)
        if self.step in _ENDING_THE_RUN and failure is not None:
            self._fail_run_if_final(context, call, failure)
        return self._value(outcome)

    def on_kill(self) -> None:
        """Ask the child to checkpoint and end; the supervision kills it five seconds later."""
        stop: threading.Event | None = getattr(self, "_stop", None)
        if stop is not None:
            stop.set()

    def _check(self, context: Context) -> None:
        """Check what only Airflow's side can see."""
        from airflow.sdk.configuration import conf

        if self.problems:
            raise ConfigError(
                f"The study file {self.study_file} has problems.",
                "correct them; the DAG gets its schedule with the next parse",
                [Problem("", problem) for problem in self.problems],
            )
        if self.study_file is None:
            run = context["dag_run"]
            refuse_unknown_keys(run.conf or {})
            name = self._spec(context).name
            owner = owner_of(name, Path(self.studies)) if self.studies else None
            if owner is not None:
                raise ConfigError(
                    f"Study {name} is owned by {owner}.",
                    f"trigger automl_{name} instead, or choose another name",
                )
        url = conf.get("core", "execution_api_server_url", fallback=None)
        check_pools(url or f"{conf.get('api', 'base_url').rstrip('/')}/execution/")

    def _spec(self, context: Context) -> StudySpec:
        if self.study_file is not None:
            return load_study_file(Path(self.study_file))
        return spec_from_params(context["params"])

    def _call(self, context: Context, spec: StudySpec) -> _Call:
        run = context["dag_run"]
        supervisor = os.getppid()
        payload = {
            "spec": None if self.study_file else spec.model_dump(mode="json", by_alias=True),
            "study_file": self.study_file,
            "run": run_name(run.dag_id, run.run_id),
            "worker": self.worker,
            "snapshot": None if self.prepared is None else self.prepared["snapshot"],
            "origin": f"airflow:{run.dag_id}",
        }
        return _Call(
            payload,
            child_environment(os.environ),
            lambda line: self.log.info("%s", line),
            # a task outlives its supervisor while it computes: then its result counts no more
            lambda: self._stop.is_set() or os.getppid() != supervisor,
            self.module,
        )

    def _worker_outcome(self, context: Context, call: _Call, outcome: StepResult) -> Any:
        result = outcome.result or {}
        context["trial_label"] = result.get("label") or f"worker {self.worker}"  # type: ignore[typeddict-unknown-key]
        if outcome.has_died:
            freed = call.run("give_back", _MARGIN_S)
            self.log.warning("The worker's trials are given back: %s", self._value(freed))
        value = self._value(outcome)
        if value["state"] == "slice_ended":
            self.log.info("Gives its pool slot back for %s s", RESCHEDULE_S)
            raise AirflowRescheduleException(  # type: ignore[no-untyped-call]
                datetime.now(UTC) + timedelta(seconds=RESCHEDULE_S)
            )
        return value

    def _value(self, outcome: StepResult) -> Any:
        """Return the step's result, or raise what Airflow understands."""
        error = self._error(outcome)
        if error is not None:
            raise error
        return outcome.result

    def _error(self, outcome: StepResult) -> AirflowException | None:
        """Return what Airflow understands of the step's failure; None if there was none."""
        if outcome.failure is not None:
            text = str(outcome.failure.to_error())
            kind = AirflowException if outcome.failure.retryable else AirflowFailException
            return kind(text)
        if outcome.signal is not None:
            return AirflowException(
                f"The process of {self.step} was killed by signal {outcome.signal}. "
                "Hint: signal 9 is usually the machine's lack of memory"
            )
        if self._stop.is_set():
            return AirflowException(f"{self.step} was stopped from outside")
        return None

    def _fail_run_if_final(self, context: Context, call: _Call, error: AirflowException) -> None:
        """Close the run unless the step is tried again; the next run then need not wait for it."""
        instance = context["ti"]
        is_last = (
            isinstance(error, AirflowFailException) or instance.try_number > instance.max_tries
        )
        if self._stop.is_set() or not is_last:  # who stops a task may still start it again
            return
        failing = replace(call, payload={**call.payload, "cause": f"{self.step}: {error}"})
        closed = failing.run("fail_run", _MARGIN_S)
        if closed.failure is not None or closed.signal is not None:
            self.log.warning("The run could not be closed: %s", self._error(closed))


def _airflow_error(error: AutoMLError) -> AirflowException:
    return AirflowException(str(error)) if error.retryable else AirflowFailException(str(error))
