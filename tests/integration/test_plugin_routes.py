"""Routes that the plugin adds to Airflow's API server, asked without a login and as a viewer."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from automl_airflow.local import LocalAirflow
from automl_airflow.pools import POOLS, is_awaited
from automl_airflow.rest import AirflowClient
from fastapi import FastAPI

os.environ.setdefault("AIRFLOW_HOME", "/tmp/automl-test-airflow")  # noqa: S108
pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")

POOLS_PREFIX = "/automl-pools"  # of the one application that anybody may ask
OPEN = {("GET", f"{POOLS_PREFIX}/missing")}
REPOSITORY = Path(__file__).parents[2]


def routes(apps: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield method and path of each route, with something in place of its parameters."""
    for entry in apps:
        for route in entry["app"].routes:
            path = entry["url_prefix"] + re.sub(r"\{[^}]*\}", "x", getattr(route, "path", "/x"))
            for method in sorted(getattr(route, "methods", None) or {"GET"}):
                yield method, path


class ApiServerAlone(LocalAirflow):
    """The API server with its database, without what schedules."""

    def __init__(self, folder: Path) -> None:
        users = "admin:admin,viewer:viewer"
        env = {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": users, "AUTOML_HOME": str(folder)}
        super().__init__(folder, REPOSITORY / "dags", env)
        self.components = (("api-server",),)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServerAlone]:
    with ApiServerAlone(tmp_path_factory.mktemp("airflow")) as server:
        yield server


def token_of(server: ApiServerAlone, user: str) -> str:
    passwords = server.home_dir / "simple_auth_manager_passwords.json.generated"
    client = AirflowClient(server.url, user, json.loads(passwords.read_text())[user])
    client.call("GET", "version")
    return client._token


def ask(server: ApiServerAlone, method: str, path: str, token: str | None) -> tuple[int, str]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(server.url + path, method=method, headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def open_routes(server: ApiServerAlone, apps: list[dict[str, Any]], token: str | None) -> set[Any]:
    """Return the routes that do not refuse."""
    found = set(routes(apps))
    return {route for route in found if ask(server, *route, token)[0] not in {401, 403}}


def test_the_walk_sees_every_method_of_every_route() -> None:
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.get("/a/{name}")(lambda name: name)
    app.post("/a/{name}")(lambda name: name)

    assert set(routes([{"app": app, "url_prefix": "/p"}])) == {
        ("GET", "/p/a/x"),
        ("POST", "/p/a/x"),
    }


@pytest.mark.parametrize("user", [None, "viewer"])
def test_nothing_but_the_pools_route_answers_strangers_and_viewers(
    server: ApiServerAlone, user: str | None
) -> None:
    from automl_airflow.plugin import AutoMLPlugin

    apps = AutoMLPlugin().fastapi_apps
    token = None if user is None else token_of(server, user)

    assert set(routes(apps)) >= OPEN
    assert open_routes(server, apps, token) == OPEN


def test_the_pools_route_tells_our_pools_and_nothing_else(server: ApiServerAlone) -> None:
    path = f"{POOLS_PREFIX}/missing"
    both = '{"missing":[],"slots":{"automl_cpu":2,"automl_gpu":2}}'
    assert ask(server, "GET", path, None) == (200, both)
    assert ask(server, "GET", f"{path}?name=default_pool", None) == (200, both)

    admin = token_of(server, "admin")
    pool, other = POOLS
    server.client.make_pool(other, 5, "as often as one likes")
    assert ask(server, "DELETE", f"/api/v2/pools/{pool}", admin)[0] == 204
    left = f'{{"missing":["{pool}"],"slots":{{"{other}":5}}}}'
    assert ask(server, "GET", path, None) == (200, left)
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert ask(server, method, path, None)[0] == 405
    for page in ("/docs", "/redoc", "/openapi.json", "/", "/x"):
        assert ask(server, "GET", POOLS_PREFIX + page, None)[0] == 404


GPU = "automl_gpu"
OTHERS = [  # state, pool, seconds of waiting, weight, dag, run; and whether ours goes after it
    ("scheduled", GPU, 100, 1, "automl_b", "one", True),
    ("scheduled", GPU, 100, 2, "automl_a", "two", True),
    ("scheduled", GPU, 100, 1, "automl_a", "one", False),
    ("scheduled", GPU, 100, 0, "automl_b", "one", False),
    ("scheduled", GPU, 10, 1, "automl_b", "one", False),
    ("scheduled", "automl_cpu", 100, 1, "automl_b", "one", False),
    ("queued", GPU, 100, 1, "automl_b", "one", False),
    ("up_for_reschedule", GPU, 100, 1, "automl_b", "one", False),
]


def put_tasks(server: ApiServerAlone, *tasks: dict[str, Any]) -> None:
    """Replace the task instances in Airflow's database, of runs that are not there."""
    with closing(sqlite3.connect(server.home_dir / "airflow.db")) as database, database:
        database.execute("DELETE FROM task_instance")
        for number, task in enumerate(tasks, start=1):
            since = datetime.now(UTC) - timedelta(seconds=task.pop("waits_s"))
            row = {
                "id": UUID(int=number).hex, "task_id": "search", "map_index": number,
                "try_number": 1, "pool_slots": 1, "scheduled_dttm": str(since.replace(tzinfo=None)),
            } | task  # fmt: skip
            names, marks = ", ".join(row), ", ".join("?" * len(row))
            database.execute(
                f"INSERT INTO task_instance ({names}) VALUES ({marks})",  # noqa: S608 - ours
                list(row.values()),
            )


@pytest.mark.parametrize(("state", "pool", "waits_s", "weight", "dag", "run", "goes_first"), OTHERS)
def test_a_task_of_another_run_that_has_waited_goes_first(
    server: ApiServerAlone, state: str, pool: str, waits_s: int, weight: int, dag: str, run: str,
    goes_first: bool,  # noqa: FBT001 - a column of the table
) -> None:  # fmt: skip
    mine = {"state": "running", "pool": GPU, "priority_weight": 1, "dag_id": "automl_a",
            "run_id": "one", "waits_s": 0}  # fmt: skip
    theirs = {"state": state, "pool": pool, "priority_weight": weight, "dag_id": dag,
              "run_id": run, "waits_s": waits_s}  # fmt: skip
    put_tasks(server, mine, theirs)
    url, own = f"{server.url}/execution/", UUID(int=1)

    assert is_awaited(url, own, 60) is goes_first
    assert not is_awaited(url, own, 3600)
    assert not is_awaited(url, UUID(int=3), 60)


def test_an_api_server_that_cannot_tell_who_waits_is_no_trouble(server: ApiServerAlone) -> None:
    for url in (f"{server.url}/elsewhere/execution/", "http://127.0.0.1:9/execution/"):
        assert not is_awaited(url, UUID(int=1), 60)
    assert ask(server, "GET", f"{POOLS_PREFIX}/missing?ti=x&seconds=1", None)[0] == 422


def test_a_viewer_may_not_start_a_run(server: ApiServerAlone) -> None:
    path = "/api/v2/dags/automl_search/dagRuns"

    assert ask(server, "POST", path, token_of(server, "viewer"))[0] == 403
    assert ask(server, "POST", path, None)[0] == 401
