"""Where nights keep their state, on every kind of store."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator

import pytest

from automl.domain.settings import Settings
from benchmarks.servers import PostgresServer
from tests.crash.night import Place

MakePlace = Callable[[], Place]


@pytest.fixture(scope="module", params=["file", "postgres", "s3"])
def make_place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakePlace]:
    """A function that returns an empty place."""
    if request.param == "s3":
        server = request.getfixturevalue("s3_server")
        folder, names = f"s3://{server.bucket}/{uuid.uuid4().hex}", itertools.count()
        with pytest.MonkeyPatch.context() as patch:
            for variable, value in server.environment.items():
                patch.setenv(variable, value)
            yield lambda: Place(Settings(f"{folder}/{next(names)}"), server.environment)
        return
    log = None if request.param == "file" else _new_database(request)
    yield lambda: Place(Settings(str(tmp_path_factory.mktemp("home")), study_log=log))


def _new_database(request: pytest.FixtureRequest) -> str:
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.url(server.create_database())
