"""Nights without end: the runs of a study, one after the other, until a drill is over."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from automl_airflow.rest import FINAL_STATES, AirflowApiError
from automl_airflow.stack import SOURCES_BUCKET

from tests.drill.site import Site, call, put_rows
from tests.nights import FORM_DAG, NightRun

FILE_STUDY, FORM_STUDY = "drill-file", "drill-form"
STUDIES = (FILE_STUDY, FORM_STUDY)
SEARCH_S, SLICE_S = 180, 15
_WORKERS = 2
FIRST_ROWS = 1000  # each night's data have one row more, so that Dask has something to do
_POLL_S = 3.0


@dataclass(slots=True)
class Nights:
    """Nights of one study.

    Attributes:
        site: where they run.
        study: the study.
        over: no further run begins once it is set.
        runs: those that have begun, with the time of their beginning and end.
        trouble: what ended the loop early.
    """

    site: Site
    study: str
    over: threading.Event
    runs: list[Span] = field(default_factory=list)
    trouble: str = ""

    @property
    def dag_id(self) -> str:
        """The DAG that runs the study."""
        return f"automl_{self.study}" if self.study == FILE_STUDY else FORM_DAG

    def run(self) -> None:
        """Run nights until it is over, and a quiet one, which ends what others left unfinished."""
        try:
            while not self.over.is_set():
                self._night(len(self.runs))
            self._night(len(self.runs))
        except Exception as error:  # noqa: BLE001 - the verdict tells of it
            self.trouble = f"{type(error).__name__}: {error}"

    def _night(self, number: int) -> None:
        key = f"{self.study}.npz"
        rows = FIRST_ROWS + number
        put_rows(rows, self.site.night.few.with_name(f"{self.study}.npz"), key)
        with self.site.may_trigger:
            run_id = f"{self.study}-{number}"
            self._trigger({"logical_date": None, "conf": self._conf(), "dag_run_id": run_id})
        span = Span(NightRun(self.site.night, self.dag_id, run_id), time.time())
        self.runs.append(span)
        while (state := self._state(span.run)) not in FINAL_STATES:
            time.sleep(_POLL_S)
        span.end_s, span.state = time.time(), state

    def _trigger(self, body: dict[str, Any]) -> None:
        """Trigger a run, which may have begun although the answer was lost."""
        client = self.site.night.airflow.client
        limit_s = time.monotonic() + 300
        while True:
            try:
                client.call("POST", f"dags/{self.dag_id}/dagRuns", body)
            except AirflowApiError as error:
                if ": 409 " in str(error):
                    return
                if time.monotonic() > limit_s:
                    raise
            except (OSError, http.client.HTTPException):
                if time.monotonic() > limit_s:
                    raise
            else:
                return
            time.sleep(2.0)

    def _state(self, run: NightRun) -> str:
        state: str = call(self.site, "GET", f"dags/{run.dag_id}/dagRuns/{run.run_id}")["state"]
        return state

    def _conf(self) -> dict[str, Any]:
        if self.study == FILE_STUDY:
            return {}
        return self.site.night.quick_form(
            self.study,
            source=source(self.study),
            time_limit=f"{SEARCH_S}s",
            slice=f"{SLICE_S}s",
            workers=_WORKERS,
            max_trials=1000,
        )


@dataclass(slots=True)
class Span:
    """A run, and from when until when it was seen to be on; times in seconds of the epoch."""

    run: NightRun
    start_s: float
    end_s: float = float("inf")
    state: str = ""


def source(study: str) -> str:
    """Return the address of a study's data."""
    return f"s3://{SOURCES_BUCKET}/{study}.npz"


def write_file(site: Site) -> None:
    """Write the study file, and return when Airflow knows its DAG."""
    search = {
        "time_limit": f"{SEARCH_S}s",
        "slice": f"{SLICE_S}s",
        "workers": _WORKERS,
        "max_trials": 1000,
    }
    site.night.write_study(FILE_STUDY, data={"source": source(FILE_STUDY)}, search=search)
    site.night.airflow.client.wait_for_dag(f"automl_{FILE_STUDY}", 120)
