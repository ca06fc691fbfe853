"""A whole Airflow on this machine, shared by all end-to-end tests.

Its studies are in a bucket of a real S3 server, which its steps reach through a proxy that can cut
the line. As in larger installations, Airflow keeps its own state in PostgreSQL, since SQLite is
locked too often by so many, and tasks have an API server of their own, which loads no plugins. What
takes long begins at once: the marker `scenario` names what a test wants to have happened before it
looks, and the scenarios of all tests that were chosen happen side by side, but for those that have
to be alone in a pool.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, TypeVar

import pytest
from automl_airflow.local import ApiServers, LocalAirflow

from automl.domain.settings import Settings
from automl.storage.open import open_home
from benchmarks.servers import PostgresServer, SeaweedServer
from tests.digits import write_digits
from tests.nights import ANCHOR, FORM_DAG, Line, Night, Scenario

_ROOT = Path(__file__).resolve().parents[2]
_DAGS, _TEAM = _ROOT / "dags", _ROOT / "examples"
_FEW = 300  # rows
T = TypeVar("T")


@pytest.fixture(scope="session")
def night(
    tmp_path_factory: pytest.TempPathFactory,
    s3_server: SeaweedServer,
    postgres_server: PostgresServer,
) -> Iterator[Night]:
    """Scheduler, DAG processor and API server, healthy and with the DAGs parsed."""
    folder = tmp_path_factory.mktemp("night")
    sources, studies = folder / "sources", folder / "studies"
    sources.mkdir()
    studies.mkdir()
    few = write_digits(sources / "few.npz", _FEW)
    home = f"s3://{s3_server.bucket}/night"
    database = postgres_server.url(postgres_server.create_database())
    with pytest.MonkeyPatch.context() as own, Line(s3_server.endpoint) as line:
        for variable in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            own.delenv(variable, raising=False)
        for variable, value in s3_server.environment.items():
            own.setenv(variable, value)
        env = {
            "AUTOML_HOME": home,
            "AUTOML_STUDIES": str(studies),
            "AUTOML_SOURCES": str(sources),
            "AWS_ENDPOINT_URL": line.endpoint,
            "GREENHOUSE_DATA": str(sources / "greenhouse"),
            "OMP_NUM_THREADS": "1",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": _bundles(),
        }
        split = ApiServers.SPLIT
        airflow = LocalAirflow(folder / "airflow", _DAGS, env, parallelism=6, api=split)
        store = open_home(Settings(home))
        night = Night(airflow, store, line, few, studies)
        night.write_study(ANCHOR)
        with airflow:
            airflow.client.make_pool("automl_cpu", 4, "some of them wait for an outage to end")
            for dag_id in (FORM_DAG, f"automl_{ANCHOR}"):
                airflow.client.wait_for_dag(dag_id, 120)
            yield night


def _bundles() -> str:
    """Return the bundles of DAGs: the platform's own, and those of another team."""
    kind = "airflow.dag_processing.bundles.local.LocalDagBundle"
    return json.dumps(
        [
            {"name": name, "classpath": kind, "kwargs": {"path": str(path)}}
            for name, path in (("platform", _DAGS), ("team", _TEAM))
        ]
    )


class Scenarios:
    """Scenarios of a night, which happen at once where they do not disturb each other.

    Args:
        night: the night.
        chosen: the scenarios, each with those that must be over before it begins.
    """

    def __init__(self, night: Night, chosen: Mapping[Scenario, Sequence[Scenario]]) -> None:
        self._night = night
        self._found: dict[Scenario, Future[Any]] = {scenario: Future() for scenario in chosen}
        for scenario, after in chosen.items():
            # a daemon: whoever breaks the tests off need not wait for the end of the night
            threading.Thread(target=self._happen, args=(scenario, after), daemon=True).start()

    def _happen(self, scenario: Scenario, after: Sequence[Scenario]) -> None:
        found = self._found[scenario]
        wait([self._found[other] for other in after if other in self._found])
        try:
            found.set_result(scenario(self._night))
        except BaseException as error:  # noqa: BLE001 - the tests that ask for it raise it
            found.set_exception(error)

    def outcome(self, scenario: Callable[[Night], T]) -> T:
        """Return what came of a scenario, or raise what it raised."""
        found: T = self._found[scenario].result()
        return found


@pytest.fixture(scope="session")
def scenarios(night: Night, request: pytest.FixtureRequest) -> Scenarios:
    """The scenarios of the tests that were chosen, begun."""
    chosen: dict[Scenario, Sequence[Scenario]] = {}
    for item in request.session.items:
        for mark in item.iter_markers("scenario"):
            chosen[mark.args[0]] = mark.kwargs["after"]
    return Scenarios(night, chosen)
