"""Checks of pools. A task of Airflow 3.3.2 cannot look pools up, so the API server answers.

A task that names a missing pool is never scheduled and says so only in the scheduler's log. The
execution API has no route for pools and tasks have no credentials for the REST API; therefore the
plugin serves two facts, which tell a stranger nothing else, at the address that tasks know: the
slots of its pools, and whether a task of another run waits for a slot for long.
"""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from uuid import UUID

from automl.errors import ConfigError, Problem, StorageError
from automl.steps.specs import Pool, Queue

if TYPE_CHECKING:
    from fastapi import FastAPI
    from sqlalchemy.orm import Session

NAMES = {Pool.CPU: "automl_cpu", Pool.GPU: "automl_gpu"}  # the default pool is Airflow's own
POOLS = {
    NAMES[Pool.CPU]: "AutoML: preparing, exporting and evaluating",
    NAMES[Pool.GPU]: "AutoML: training, one slot per device",
}
QUEUES = {Queue.GPU: "gpu"}  # the default queue is the executor's own
_TIMEOUT_S = 20

log = logging.getLogger(__name__)


def make_app() -> FastAPI:
    """Return the application that tells of the pools, and of who waits for their slots."""
    from fastapi import FastAPI

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/missing")
    def missing(ti: UUID | None = None, seconds: float = 0.0) -> dict[str, Any]:
        from airflow.models.pool import Pool as AirflowPool
        from airflow.utils.session import create_session

        with create_session() as session:
            pools = {name: AirflowPool.get_pool(name, session=session) for name in POOLS}
            return {
                "missing": [name for name, pool in pools.items() if pool is None],
                "slots": {name: pool.slots for name, pool in pools.items() if pool is not None},
                **({} if ti is None else {"waits": _waits(ti, seconds, session)}),
            }

    return app


def _waits(ti: UUID, seconds: float, session: Session) -> bool:
    """Return whether a task of another run has waited for so long for a slot of a task's pool.

    Those of less weight do not count: they have to wait.
    """
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import or_, select
    from sqlalchemy.orm import aliased

    task, own = TaskInstance, aliased(TaskInstance)
    other = select(task.id).where(
        own.id == ti,
        task.pool == own.pool,
        task.state == TaskInstanceState.SCHEDULED,
        task.scheduled_dttm <= datetime.now(UTC) - timedelta(seconds=seconds),
        task.priority_weight >= own.priority_weight,
        or_(task.dag_id != own.dag_id, task.run_id != own.run_id),
    )
    return session.scalars(other.limit(1)).first() is not None


def is_awaited(execution_api_url: str, ti: UUID | str, seconds: float) -> bool:
    """Return whether a task of another run waits for a slot that this task may leave to it.

    A server that cannot tell is no trouble: then whoever Airflow takes first has the slot.

    Args:
        execution_api_url: where tasks reach the API server, ending in `/execution/`.
        ti: id of this task instance.
        seconds: for how long the other must have waited.
    """
    url = f"{_route(execution_api_url)}?ti={ti}&seconds={seconds:.0f}"
    try:
        return bool(_answer(url)["waits"])
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        log.info("the API server does not tell who waits for a slot: %s", error)
        return False


def _route(execution_api_url: str) -> str:
    return f"{execution_api_url.rstrip('/').removesuffix('/execution')}/automl-pools/missing"


def _answer(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:  # noqa: S310 - Airflow's own address
        found: dict[str, Any] = json.load(response)
    return found


def execution_api_url(conf: Any) -> str:
    """Return where tasks reach the API server, by Airflow's settings, as its executors find it."""
    base = conf.get("api", "base_url", fallback=None) or "/"
    base = f"http://localhost:8080{base}" if base.startswith("/") else base
    url: str | None = conf.get("core", "execution_api_server_url", fallback=None)
    return url or f"{base.rstrip('/')}/execution/"


def check_pools(execution_api_url: str) -> dict[str, int]:
    """Ask the API server for the pools, and return their slots; none if it cannot tell.

    A server that was started without the plugins' routes (`--apps execution`) cannot tell: then a
    warning says how to look by hand.

    Args:
        execution_api_url: where tasks reach the API server, ending in `/execution/`.

    Raises:
        ConfigError: pools are missing; each with the command that creates it.
        StorageError: the API server does not answer.
    """
    url = _route(execution_api_url)
    try:
        answer = _answer(url)
    except (urllib.error.URLError, ConnectionError, TimeoutError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
            if error.code == HTTPStatus.NOT_FOUND:
                log.warning(
                    "The pools could not be checked: the API server has no %s. `airflow pools "
                    "list` must show %s; without them tasks wait for ever.",
                    url, " and ".join(POOLS),
                )  # fmt: skip
                return {}
        raise StorageError(
            f"The API server does not answer at {url}: {error}.",
            "see whether it runs and whether tasks reach it",
        ) from error
    problems = [
        Problem(name, f'the pool is missing: airflow pools set {name} 2 "{POOLS[name]}"')
        for name in answer["missing"]
    ]
    if problems:
        raise ConfigError("Airflow lacks pools.", "run the commands below", problems)
    slots: dict[str, int] = answer.get("slots", {})  # an API server of before does not tell
    return slots
