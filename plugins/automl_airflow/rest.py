"""The few calls of Airflow's REST API that the demo and the tests need; standard library only."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from automl.errors import AutoMLError

_TIMEOUT_S = 30
_HEALTH_S = 10
FINAL_STATES = frozenset({"success", "failed"})


class AirflowApiError(AutoMLError):
    """Airflow refused a call."""


class AirflowClient:
    """Triggers runs and watches them.

    Args:
        url: address of the API server.
        user: name of the user.
        password: the user's password.
    """

    def __init__(self, url: str, user: str, password: str) -> None:
        self._url, self._user, self._password = url, user, password
        self._token = ""

    def is_healthy(self, components: Sequence[str] = ("scheduler", "dag-processor")) -> bool:
        """Return whether the API server and the named components are up."""
        try:
            with urllib.request.urlopen(  # noqa: S310 - http of our own making
                f"{self._url}/api/v2/monitor/health", timeout=_HEALTH_S
            ) as response:
                health = json.load(response)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        parts = (component.replace("-", "_") for component in components)
        return all(health[part]["status"] == "healthy" for part in parts)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Call `/api/v2/<path>` and return its JSON.

        Raises:
            AirflowApiError: the answer is an error; the message holds Airflow's words.
        """
        if not self._token:
            login = {"username": self._user, "password": self._password}
            self._token = self._send("POST", "/auth/token", login)["access_token"]
        return self._send(method, f"/api/v2/{path}", body)

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - http of our own making
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
                return json.load(response)
        except urllib.error.HTTPError as error:
            words = error.read().decode(errors="replace")
            raise AirflowApiError(f"{method} {path}: {error.code} {words}") from error

    def make_pool(self, name: str, slots: int, description: str) -> None:
        """Create a pool, or set the slots of the one there is."""
        facts = {"slots": slots, "description": description, "include_deferred": False}
        if any(have["name"] == name for have in self.call("GET", "pools?limit=100")["pools"]):
            self.call("PATCH", f"pools/{name}", {"pool": name, **facts})
        else:
            self.call("POST", "pools", {"name": name, **facts})

    def wait_for_dag(self, dag_id: str, timeout_s: float = 60) -> None:
        """Wait until Airflow knows the DAG.

        Raises:
            AirflowApiError: it does not in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                self.call("GET", f"dags/{dag_id}")
            except AirflowApiError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(1)
            else:
                return

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run and return its id."""
        body = {"logical_date": None, "conf": dict(conf or {})}
        run_id: str = self.call("POST", f"dags/{dag_id}/dagRuns", body)["dag_run_id"]
        return run_id

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the run's state."""
        state: str = self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}")["state"]
        return state

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a run: task_id, map_index, state and more."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=200"
        instances: list[dict[str, Any]] = self.call("GET", path)["task_instances"]
        return instances

    def wait(
        self,
        dag_id: str,
        run_id: str,
        timeout_s: float,
        on_tasks: Callable[[list[dict[str, Any]]], None] = lambda tasks: None,
    ) -> str:
        """Wait for the end of a run and return its state, or the last one seen at the time limit.

        Args:
            dag_id: the DAG.
            run_id: the run.
            timeout_s: how long to wait.
            on_tasks: gets the task instances every two seconds.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            state = self.run_state(dag_id, run_id)
            on_tasks(self.tasks(dag_id, run_id))
            if state in FINAL_STATES or time.monotonic() > deadline_s:
                return state
            time.sleep(2)
