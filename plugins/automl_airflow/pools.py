"""Checks of pools. A task of Airflow 3.3.2 cannot look pools up, so the API server answers.

A task that names a missing pool is never scheduled and says so only in the scheduler's log. The
execution API has no route for pools and tasks have no credentials for the REST API; therefore the
plugin serves this one fact, which tells a stranger nothing else, at the address that tasks know.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from automl.errors import ConfigError, Problem, StorageError
from automl.steps.specs import Pool

if TYPE_CHECKING:
    from fastapi import FastAPI

NAMES = {Pool.CPU: "automl_cpu", Pool.GPU: "automl_gpu"}  # the default pool is Airflow's own
POOLS = {
    NAMES[Pool.CPU]: "AutoML: preparing, exporting and evaluating",
    NAMES[Pool.GPU]: "AutoML: training, one slot per device",
}
_TIMEOUT_S = 20


def make_app() -> FastAPI:
    """Return the application that tells which pools are missing."""
    from fastapi import FastAPI

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/missing")
    def missing() -> dict[str, list[str]]:
        from airflow.models.pool import Pool as AirflowPool
        from airflow.utils.session import create_session

        with create_session() as session:
            return {
                "missing": [
                    name for name in POOLS if AirflowPool.get_pool(name, session=session) is None
                ]
            }

    return app


def check_pools(execution_api_url: str) -> None:
    """Ask the API server for the pools.

    Args:
        execution_api_url: where tasks reach the API server, ending in `/execution/`.

    Raises:
        ConfigError: pools are missing; each with the command that creates it.
        StorageError: the API server does not answer.
    """
    url = f"{execution_api_url.rstrip('/').removesuffix('/execution')}/automl-pools/missing"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:  # noqa: S310 - Airflow's own address
            answer: dict[str, Any] = json.load(response)
    except (urllib.error.URLError, TimeoutError, ValueError) as error:
        raise StorageError(
            f"The API server does not answer at {url}: {error}.",
            "install automl-airflow where the API server runs and restart it",
        ) from error
    problems = [
        Problem(name, f'the pool is missing: airflow pools set {name} 2 "{POOLS[name]}"')
        for name in answer["missing"]
    ]
    if problems:
        raise ConfigError("Airflow lacks pools.", "run the commands below", problems)
