"""`automl promote` and `automl rollback`: a person decides about the champion."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
from pathlib import Path

import pytest

from automl.domain.settings import Settings
from automl.publishing.registry import Registry
from automl.runs.context import StepContext
from automl.runs.opening import open_run
from automl.steps.study_file import study_spec
from automl.storage.objects import ObjectStore
from automl.storage.open import open_home
from tests import commands
from tests.commands import document_of
from tests.versions import NOW, publish

STUDY = "greens"


@pytest.fixture
def home(tmp_path: Path) -> str:
    """A folder with a study of three versions, each of which has become champion."""
    return with_versions(str(tmp_path / "home"))


@pytest.fixture(params=["file", "s3"])
def any_home(request: pytest.FixtureRequest) -> str:
    """The same in each kind of store."""
    if request.param == "s3":
        return with_versions(request.getfixturevalue("s3_store_uri"))
    return str(request.getfixturevalue("home"))


def with_versions(uri: str) -> str:
    """Publish and promote three versions there, and return the place."""
    document = {"name": STUDY, "task": "image_classification", "data": {"source": "rows.npz"}}
    context = StepContext.open(Settings(uri), study_spec(document), "one", "test")
    open_run(context, "snapshot")
    registry = Registry(context.store, STUDY)
    for run in ("a", "b", "c"):
        registry.promote(publish(registry, run), run, "Better.", NOW)
    return uri


def automl(home: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return commands.automl(*arguments, "--home", home, settings=os.environ)


def test_a_promoted_version_is_the_champion(any_home: str) -> None:
    document = document_of(
        automl(any_home, "promote", STUDY, "1", "--why", "It is fast.", "--json")
    )

    when = document.pop("when")
    assert document.pop("onnx").endswith(f"models/{STUDY}/1/model.onnx")
    assert document == {
        "schema": 1,
        "study": STUDY,
        "champion": 1,
        "from": 3,
        "promotion": 4,
        "changed": True,
        "who": getpass.getuser(),
        "why": "It is fast.",
    }
    shown = document_of(automl(any_home, "models", STUDY, "--json"))
    assert shown["champion"] == 1
    assert shown["promotions"][-1] == {
        "promotion": 4, "from": 3, "to": 1, "who": getpass.getuser(), "why": "It is fast.",
        "when": when,
    }  # fmt: skip
    stored = json.loads(_store(any_home).get(f"models/{STUDY}/champion.json").data)
    assert (stored["version"], stored["promotion"]) == (1, 4)


def test_rollbacks_go_back_until_nothing_lies_before(home: str) -> None:
    first = document_of(automl(home, "rollback", STUDY, "--json"))
    second = automl(home, "rollback", STUDY)
    third = automl(home, "rollback", STUDY, "--json")

    assert (first["champion"], first["from"], first["why"]) == (2, 3, "Rolled back by hand.")
    assert second.stdout.startswith(f"version 1 of {STUDY} is the champion, before it 2\nmodel ")
    assert third.returncode == 2
    error = json.loads(third.stdout)["error"]
    assert error["type"] == "ConfigError"
    assert "no champion before the present one" in error["message"]
    assert f"automl promote {STUDY} VERSION" in error["hint"]
    table = automl(home, "models", STUDY).stdout
    assert "Rolled back by hand." in table
    assert table.endswith("champion: 1\n")


def test_promoting_the_champion_changes_nothing(home: str) -> None:
    document = document_of(automl(home, "promote", STUDY, "3", "--json"))

    assert (document["changed"], document["promotion"], document["who"]) == (False, 3, "c")
    assert "is the champion already, before it 2" in automl(home, "promote", STUDY, "3").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["promote", STUDY, "9"], "Study greens has no version 9."),
        (["promote", "weeds", "1"], "There is no study 'weeds'"),
        (["rollback", "weeds"], "There is no study 'weeds'"),
    ],
)
def test_what_does_not_exist_is_named(home: str, arguments: list[str], message: str) -> None:
    done = automl(home, *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_version_is_refused_and_named(any_home: str) -> None:
    key = f"models/{STUDY}/2/model.onnx"
    _store(any_home).put(key, b"x")

    for arguments in (["promote", STUDY, "2"], ["rollback", STUDY]):
        done = automl(any_home, *arguments)
        assert done.returncode == 4
        assert f"{key} has SHA-256" in done.stderr
    assert list(Registry(_store(any_home), STUDY).promotions()) == [1, 2, 3]


def _store(home: str) -> ObjectStore:
    return open_home(Settings(home)).store
