"""Nights under a real Airflow: its runs, what they leave behind, and outages of its store."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import yaml
from automl_airflow.local import LocalAirflow
from automl_airflow.operator import run_name
from automl_airflow.rest import AirflowApiError

from automl.domain.settings import Settings
from automl.domain.study import Run, Study
from automl.publishing.manifest import Manifest
from automl.publishing.registry import Registry
from automl.runs.context import StepContext
from automl.runs.run_lease import RunLease
from automl.steps.study_file import study_spec
from automl.storage.home import Home
from automl.storage.study_log import StudyRecord
from tests.faulty_proxy import LOST_REQUEST, FaultyProxy, Matcher, Request

FORM_DAG = "automl_search"
TASK = "image_classification"
ANCHOR = "anchor"  # a study whose DAG is there from the start
RUN_WITHIN_S = 900.0  # a busy machine takes long
_POLL_S = 1.0

T = TypeVar("T")


Scenario = Callable[["Night"], object]


def happens(scenario: Scenario, after: Sequence[Scenario] = ()) -> pytest.MarkDecorator:
    """Return the mark of tests that look at what comes of a scenario.

    Args:
        scenario: what happens.
        after: scenarios that it would disturb, or they it: it begins when they are over.
    """
    return pytest.mark.scenario.with_args(scenario, after=after)


def until(
    look: Callable[[], T], what: str, within_s: float = RUN_WITHIN_S, every_s: float = _POLL_S
) -> T:
    """Return what `look` returns once that is true in the sense of `bool`.

    Raises:
        AssertionError: it is not in time.
    """
    limit_s = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < limit_s, f"not within {within_s:g} s: {what}"
        time.sleep(every_s)
    return found


@dataclass(frozen=True)
class Night:
    """A running Airflow and the home of its studies.

    Attributes:
        airflow: scheduler, DAG processor and API server.
        home: where its steps keep everything, by a way that nobody cuts.
        line: the way of its steps to that home.
        few: file of some rows of the digits, on which trainings are short.
        studies: folder of the study files.
    """

    airflow: LocalAirflow
    home: Home
    line: FaultyProxy
    few: Path
    studies: Path

    def quick_form(self, name: str, **more: Any) -> dict[str, Any]:
        """Return what the form is filled in with for one trial on few rows."""
        return {
            "name": name,
            "source": str(self.few),
            "time_limit": "10m",  # `max_trials` ends the search
            "max_trials": 1,
            "workers": 1,
            "slice": "5m",
            "retrain": False,
            **more,
        }

    def write_study(self, name: str, file: str | None = None, **sections: Any) -> Path:
        """Write the file of a study of one trial on few rows, which is run by hand."""
        document = {
            "name": name,
            "task": TASK,
            "schedule": None,
            "data": {"source": str(self.few)},
            "search": {"time_limit": "10m", "max_trials": 1, "workers": 1, "slice": "5m"},
            "final_fit": {"retrain": False},
            **sections,
        }
        path = self.studies / f"{file or name}.yaml"
        partial = path.with_suffix(".partial")
        partial.write_text(yaml.safe_dump(document))
        return partial.rename(path)

    def wait_for_dag(self, dag_id: str, **fields: str | None) -> None:
        """Return when Airflow knows a DAG of a study file, and shows it with some fields.

        The DAG processor is asked to look at once, again and again: it may miss it if it is about
        to look by itself.
        """

        def is_known() -> bool:
            token = self._dag(f"automl_{ANCHOR}")["file_token"]
            with suppress(AirflowApiError):  # somebody has just asked
                self.airflow.client.call("PUT", f"parseDagFile/{token}")
            dag = self._dag(dag_id)
            return bool(dag) and all(dag[name] == value for name, value in fields.items())

        until(is_known, f"{dag_id} with {fields}; now {self._dag(dag_id)}", every_s=3.0)

    def _dag(self, dag_id: str) -> dict[str, Any]:
        """Return what Airflow shows of a DAG, nothing while it does not know it."""
        try:
            dag: dict[str, Any] = self.airflow.client.call("GET", f"dags/{dag_id}")
        except AirflowApiError:
            return {}
        return dag

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> NightRun:
        """Start a run of a DAG by hand."""
        return NightRun(self, dag_id, self.airflow.client.trigger(dag_id, conf))

    def runs_of(self, dag_id: str) -> list[NightRun]:
        """Return the runs of a DAG, oldest first; none while Airflow does not know the DAG."""
        try:
            answer = self.airflow.client.call("GET", f"dags/{dag_id}/dagRuns?order_by=run_after")
        except AirflowApiError:
            return []
        return [NightRun(self, dag_id, run["dag_run_id"]) for run in answer["dag_runs"]]

    def study(self, name: str) -> Study:
        """Return a study as its log tells it; an empty one if there is none."""
        return StudyRecord(self.home.study_log(name)).refresh()

    def registry(self, name: str) -> Registry:
        """Return a study's versions."""
        return Registry(self.home.store, name)

    def champion(self, name: str) -> Manifest:
        """Return the manifest of the version that `champion.json` names."""
        registry = self.registry(name)
        champion = registry.champion()
        assert champion is not None
        return registry.manifest(champion.version)


@dataclass(frozen=True)
class NightRun:
    """One run of a DAG.

    Attributes:
        night: the Airflow.
        dag_id: the DAG.
        run_id: the run.
    """

    night: Night
    dag_id: str
    run_id: str

    @property
    def name(self) -> str:
        """The run's name in the study's log."""
        return run_name(self.dag_id, self.run_id)

    def in_log(self, study: str) -> Run:
        """Return the run as the study's log tells it."""
        run = self.night.study(study).run(self.name)
        assert run is not None, f"{self.name} was never opened"
        return run

    def tasks(self) -> list[dict[str, Any]]:
        """Return the task instances."""
        return self.night.airflow.client.tasks(self.dag_id, self.run_id)

    def states(self) -> dict[str, str]:
        """Return the state of each task, of the first instance if it is mapped."""
        return {task["task_id"]: task["state"] or "none" for task in reversed(self.tasks())}

    def tries(self) -> dict[str, int]:
        """Return the most tries that an instance of each task has used."""
        tries: dict[str, int] = {}
        for task in self.tasks():
            name = task["task_id"]
            tries[name] = max(tries.get(name, 0), task["try_number"])
        return tries

    def wait(self, expected: str = "success", within_s: float = RUN_WITHIN_S) -> NightRun:
        """Return once the run has ended as expected.

        Raises:
            AssertionError: it has not, with the ends of the logs of the tasks that explain it.
        """
        state = self.night.airflow.client.wait(self.dag_id, self.run_id, within_s)
        assert state == expected, self.story()
        return self

    def wait_for_task(
        self, task_id: str, *states: str, within_s: float = RUN_WITHIN_S, every_s: float = _POLL_S
    ) -> str:
        """Return the state of a task once it is one of `states`.

        Raises:
            AssertionError: it is not in time, or the run has ended before.
        """

        def look() -> str | None:
            state = self.states().get(task_id, "none")
            if state in states:
                return state
            ended = self.night.airflow.client.run_state(self.dag_id, self.run_id)
            assert ended not in {"success", "failed"}, self.story()
            return None

        what = f"{task_id} {' or '.join(states)}"
        try:
            state = until(look, what, within_s, every_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story()}") from error
        assert state is not None
        return state

    def clear(self, *task_ids: str) -> NightRun:
        """Clear tasks and what comes after them, as people do it in the UI; the run goes on."""
        body = {
            "dry_run": False,
            "dag_run_id": self.run_id,
            "task_ids": list(task_ids),
            "only_failed": False,
            "include_downstream": True,
            "reset_dag_runs": True,
        }
        answer = self.night.airflow.client.call(
            "POST", f"dags/{self.dag_id}/clearTaskInstances", body
        )
        assert answer["total_entries"] >= len(task_ids)
        return self

    def attempts(self, task_id: str) -> int:
        """Return how often a task that is no mapped one has begun, slices and waits included."""
        return self.log(task_id, 1_000_000).count("::group::Pre Execute")

    def log(self, task_id: str, lines: int = 400) -> str:
        """Return the end of the newest log of a task."""
        return self.night.airflow.log_tail(self.dag_id, self.run_id, task_id, lines)

    def story(self) -> str:
        """Return how the tasks stand, and the ends of the logs of those that did not succeed."""
        tasks = self.tasks()
        told = [f"{t['task_id']}[{t['map_index']}] {t['state']} ({t['try_number']})" for t in tasks]
        quiet = {None, "success", "skipped", "removed", "upstream_failed", "scheduled", "queued"}
        loud = dict.fromkeys(t["task_id"] for t in tasks if t["state"] not in quiet)
        logs = [f"the log of {task_id} ends with:\n{self._shown(task_id)}" for task_id in loud]
        return "\n".join([f"{self.dag_id} {self.run_id}: {', '.join(told)}", *logs])

    def _shown(self, task_id: str) -> str:
        """Return the end of a task's log as people read it."""
        lines = []
        for line in self.log(task_id, 60).splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                lines.append(line)
                continue
            causes = [each["exc_value"] for each in entry.get("error_detail", ())]
            lines.append(" ".join([entry["timestamp"], entry["level"], entry["event"], *causes]))
        return "\n".join(lines)

    def processes_of(self, step: str) -> list[psutil.Process]:
        """Return the running processes of a step of this run."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.cmdline()[1:] == ["-m", "automl.steps", step]:
                    payload = json.loads(Path(f"/proc/{process.pid}/fd/0").read_bytes())
                    if payload["run"] == self.name:
                        found.append(process)
            except (psutil.Error, OSError, ValueError):  # it has ended, or has just begun
                continue
        return found


@contextmanager
def held(night: Night, study: str) -> Iterator[None]:
    """Hold a study as a run of the command line does, until the end of the block."""
    document = {"name": study, "task": TASK, "data": {"source": str(night.few)}}
    settings = Settings(night.home.store.uri)
    context = StepContext.open(settings, study_spec(document), "by-hand", "cli", night.home)
    with RunLease(context):
        yield


class Line(FaultyProxy):
    """A proxy that remembers no requests: those of a whole night would fill the memory."""

    def _note(self, request: Request) -> None:
        pass


class Outage:
    """A time in which requests about one study get no answer; it begins with one of them.

    Args:
        line: where the requests come along.
        study: has a name that nothing else is called by.
        begins: tells the request that it begins with.
        seconds: how long it lasts.

    Attributes:
        lost: how many requests got no answer.
    """

    def __init__(self, line: FaultyProxy, study: str, begins: Matcher, seconds: float) -> None:
        self._study, self._begins, self._seconds = study, begins, seconds
        self._over_s: float | None = None
        self._is_over = threading.Event()
        self.lost = 0
        line.plan(LOST_REQUEST, times=1_000_000, matches=self._concerns)

    def wait(self, within_s: float = RUN_WITHIN_S) -> None:
        """Return when a request got an answer again."""
        assert self._is_over.wait(within_s), f"lost {self.lost} requests, and none came through"

    def _concerns(self, request: Request) -> bool:
        if self._study not in request.path or self._is_over.is_set():
            return False
        if self._over_s is None:
            if not self._begins(request):
                return False
            self._over_s = time.monotonic() + self._seconds
        if time.monotonic() >= self._over_s:
            self._is_over.set()
            return False
        self.lost += 1
        return True
