"""The operator: runs a step in a process of its own and supervises it."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, XComArg
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowRescheduleException,
    AirflowRuntimeError,
)

from automl.domain.checked_run import CheckedRun
from automl.domain.facts import FORM_DAG, Origin, OriginKind
from automl.domain.specification import StudySpec
from automl.errors import (
    AutoMLError,
    ConfigError,
    Problem,
    SearchError,
    StorageError,
    StudyBusyError,
)
from automl.machine.process import StepResult, run_step
from automl.steps.call import StepCall
from automl.steps.specs import STEPS, StepSpec, step_named
from automl.steps.study_file import load_study_file, study_spec
from automl_airflow.child import child_environment
from automl_airflow.form import refuse_unknown_keys, spec_from_params
from automl_airflow.label import LiveLabel
from automl_airflow.lines import LineSink
from automl_airflow.slots import examine_slots
from automl_airflow.study_files import owner_of
from automl_airflow.waiting import Patience, next_time

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import DagRunProtocol

_NOT_IN_A_RUN = re.compile(r"[^A-Za-z0-9._-]")


def run_name(dag_id: str, run_id: str) -> str:
    """Return the run's name in the study log."""
    return _NOT_IN_A_RUN.sub("_", f"{dag_id}.{run_id}")


@dataclass(slots=True)
class _Child:
    """Supervision of the process of a step."""

    env: dict[str, str]
    sink: LineSink
    on_label: LiveLabel
    stop: Callable[[], bool]
    module: str
    limits: Mapping[str, float]

    def run(self, step: StepSpec, call: StepCall) -> StepResult:
        if step.is_mapped:
            self.on_label("starts")  # no longer what the slice before came to
        try:
            return run_step(
                step.name,
                call.payload(),
                env=self.env,
                timeout_s=self.limits[step.name],
                on_line=self.sink,
                on_label=self.on_label,
                stop=self.stop,
                module=self.module,
            )
        finally:
            self.sink.close()
            self.on_label.close()


@dataclass(frozen=True, slots=True)
class _Try:
    """One try of a step: what was called, and what it may come to."""

    step: StepSpec
    call: StepCall
    child: _Child
    patience: Patience
    busy_until: Callable[[datetime], datetime] | None


class StepOperator(BaseOperator):
    """Runs one step of a study's run in a child process.

    `check` alone reads the study file or the form. It stores the specification, which counts for
    the run whatever becomes of the file; the later tasks go by what it returned.

    Args:
        step: name of the step.
        study_file: path of the study file; without it and `document` the form has the
            specification.
        document: the specification as a mapping, for `check`, instead of a study file.
        checked: output of the task `check`, for all others. No template field: it adds no edge to
            the graph, so that trigger rules see the step before alone.
        worker: index of the worker, for `run_worker`.
        prepared: what `prepare` returned, for `open_run`.
        problems: what is known to be wrong; `check` fails with them.
        studies: folder of the study files, whose names the form may not use.
        module: the module that the child runs.
    """

    template_fields: Sequence[str] = ("worker", "prepared")  # outputs of tasks, no user's text
    ui_color = "#dbeafe"

    def __init__(  # noqa: PLR0913 - an operator's constructor is its configuration
        self,
        *,
        step: str,
        study_file: str | None = None,
        document: Mapping[str, Any] | None = None,
        checked: XComArg | Mapping[str, Any] | None = None,
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
        self.document = document
        self.checked = checked
        self.worker = worker
        self.prepared = prepared
        self.problems = list(problems)
        self.studies = studies
        self.module = module

    def execute(self, context: Context) -> Any:
        """Run the step and return its result.

        Raises:
            AirflowRescheduleException: it is tried again later, and Airflow counts no retry.
            AirflowFailException: it has failed for good.
        """
        self._stop = threading.Event()
        step = step_named(self.step)
        patience = Patience.of(context, self.log, self._stop.is_set)
        until = None
        try:
            if self.step == "check":
                self._check(context)
                call, child = self._first_call(context), self._child({"check": step.limit.margin_s})
            else:
                checked = self._checked(context)
                self._warn_of_a_change(context, checked)
                call, child = self._call(context, checked), self._child(checked.limits)
                until = _busy_until(context["dag_run"], checked)
        except AirflowRuntimeError as error:  # it cannot look a connection up now, say
            raise patience.after_trouble(StorageError(f"Airflow: {error}")) from error
        except AutoMLError as error:
            failed = patience.after_trouble if error.retryable else _failed
            raise failed(error) from error
        outcome = child.run(step, call)
        end = self._end(outcome, _Try(step, call, child, patience, until))
        if step.is_mapped:
            context["trial_label"] = self._label(outcome, end)  # type: ignore[typeddict-unknown-key]
        if step.ends_run and isinstance(end, AirflowFailException):
            end = self._fail_run(replace(call, cause=f"{self.step}: {end}"), child, patience) or end
        if end is not None:
            raise end
        return outcome.result

    def on_kill(self) -> None:
        """Ask the child to checkpoint and end; the supervision kills it five seconds later."""
        stop: threading.Event | None = getattr(self, "_stop", None)
        if stop is not None:
            stop.set()

    def _check(self, context: Context) -> None:
        """Check what only Airflow's side can see."""
        if self.problems:
            raise ConfigError(
                f"The study {'in ' + self.study_file if self.study_file else 'given'} is wrong.",
                "correct them; they count from the next parse of the DAG",
                [Problem("", problem) for problem in self.problems],
            )
        if self.study_file is None and self.document is None:
            run = context["dag_run"]
            refuse_unknown_keys(run.conf or {})
            name = spec_from_params(context["params"]).name
            owner = owner_of(name, Path(self.studies)) if self.studies else None
            if owner is not None:
                raise ConfigError(
                    f"Study {name} is owned by {owner}.",
                    f"trigger automl_{name} instead, or choose another name",
                )
        for warning in examine_slots():
            self.log.warning(warning)

    def _checked(self, context: Context) -> CheckedRun:
        """Return what `check` found.

        Raises:
            ConfigError: nothing, or it ran under an earlier version.
        """
        checked = self.checked
        return CheckedRun.from_json(
            checked.resolve(context) if isinstance(checked, XComArg) else checked
        )

    def _warn_of_a_change(self, context: Context, checked: CheckedRun) -> None:
        """Tell once per task if the study file says something else than what was checked."""
        if self.study_file is None or context.get("task_reschedule_count"):
            return
        try:
            found = load_study_file(Path(self.study_file))
        except Exception as error:  # noqa: BLE001 - whatever is in a file, the run goes on
            change = f"cannot be used any more ({error})"
        else:
            if found.spec_hash == checked.spec:
                return
            change = "has changed"
        self.log.warning(
            "The study file %s %s. This run goes on with the specification that was checked; "
            "the file counts from the next run.", self.study_file, change,
        )  # fmt: skip

    def _first_call(self, context: Context) -> StepCall:
        """Return the call of `check`."""
        spec = None if self.study_file is not None else self._given_spec(context)
        run, origin = _run_and_origin(context, self.study_file)
        return StepCall(spec, run, origin, study_file=self.study_file)

    def _given_spec(self, context: Context) -> StudySpec:
        """Return the specification that the DAG's author or the form has given."""
        if self.document is not None:
            return study_spec(self.document)
        return spec_from_params(context["params"])

    def _call(self, context: Context, checked: CheckedRun) -> StepCall:
        run, origin = _run_and_origin(context, self.study_file)
        return StepCall(
            None,
            run,
            origin,
            study=checked.study,
            worker=self.worker,
            snapshot=None if self.prepared is None else self.prepared["snapshot"],
        )

    def _child(self, limits: Mapping[str, float]) -> _Child:
        supervisor = os.getppid()
        return _Child(
            child_environment(os.environ),
            LineSink(self.log),
            LiveLabel(),
            # a task outlives its supervisor while it computes: then its result counts no more
            lambda: self._stop.is_set() or os.getppid() != supervisor,
            self.module,
            limits,
        )

    def _end(self, outcome: StepResult, a_try: _Try) -> AirflowException | None:
        """Return what the task raises after its child has ended; None if it has succeeded."""
        patience = a_try.patience
        if outcome.failure is None and outcome.signal is None:
            if not a_try.step.is_mapped or outcome.result["state"] != "slice_ended":
                return None
            patience.forget()
            return patience.after_slice(outcome.result.get("left_s"))
        if self._stop.is_set() or outcome.stopped:
            self.log.warning("%s was stopped from outside and is called again", self.step)
            return patience.again()
        error = self._error(outcome)
        if not outcome.has_died:
            assert outcome.failure is not None
            return self._after(error, a_try, is_retryable=outcome.failure.retryable)
        if not a_try.step.is_mapped:
            return patience.after_death(error)
        freed = a_try.child.run(STEPS["give_back"], a_try.call)
        if not freed.result:  # it did not get as far as a trial, or the store is away
            return patience.after_trouble(error)
        self.log.warning("%s\nThe worker's trials are given back: %s", error, freed.result)
        patience.forget()  # a trial in which processes die again and again is given up by the log
        return patience.again()

    def _after(self, error: AutoMLError, a_try: _Try, *, is_retryable: bool) -> AirflowException:
        """Return what the task raises after an error."""
        if isinstance(error, StudyBusyError) and a_try.busy_until is not None:
            return a_try.patience.while_busy(error, a_try.busy_until)
        return a_try.patience.after_trouble(error) if is_retryable else _failed(error)

    def _error(self, outcome: StepResult) -> AutoMLError:
        """Return the error of a step that has not succeeded."""
        if outcome.failure is not None:
            return outcome.failure.to_error()
        return SearchError(
            f"The process of {self.step} was killed by signal {outcome.signal}.",
            "signal 9 is usually the machine's lack of memory",
        )

    def _label(self, outcome: StepResult, end: AirflowException | None) -> str:
        """Return what the mapped instance is called in the task's list."""
        result = outcome.result or {}
        label = result.get("label") or f"worker {self.worker}"
        if result.get("state") == "slice_ended":
            return f"waits for a slot · {label}"
        return f"waits · {label}" if isinstance(end, AirflowRescheduleException) else label

    def _fail_run(
        self, call: StepCall, child: _Child, patience: Patience
    ) -> AirflowRescheduleException | None:
        """Close the run, so that the next one need not wait for it.

        Returns:
            What the task raises while that cannot be done: it is called again then, and may
            succeed. None once patience is at its end, too.
        """
        closed = child.run(STEPS["fail_run"], call)
        if closed.failure is None and closed.signal is None:
            return None
        self.log.error("%s", call.cause)
        error = self._error(closed)
        unclosed = StorageError(f"The run could not be closed: {error.message}", error.hint)
        end = patience.after_trouble(unclosed)
        if isinstance(end, AirflowRescheduleException):
            return end
        self.log.warning("%s", end)
        return None


def _failed(error: AutoMLError) -> AirflowException:
    return AirflowFailException(str(error))


def _busy_until(run: DagRunProtocol, checked: CheckedRun) -> Callable[[datetime], datetime]:
    """Return what gives the end of waiting for a busy study: when its next run is due."""
    is_own = Origin(OriginKind.AIRFLOW, run.dag_id).is_dag_of(checked.study)

    def until(now: datetime) -> datetime:
        if is_own and run.run_type == "scheduled" and checked.schedule is not None:
            return next_time(checked.schedule, checked.timezone, now)
        return now + timedelta(seconds=checked.time_limit)

    return until


def _run_and_origin(context: Context, study_file: str | None) -> tuple[str, str]:
    """Return the run's name and who started it, as the log tells them."""
    run = context["dag_run"]
    is_from_form = run.dag_id == FORM_DAG and study_file is None
    user = (run.triggering_user_name or "") if is_from_form else ""
    return run_name(run.dag_id, run.run_id), str(Origin(OriginKind.AIRFLOW, run.dag_id, user))
