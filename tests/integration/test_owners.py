"""A study belongs to the DAG that opened it, and from the form to its user."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from automl.domain.facts import Origin, OriginKind
from automl.domain.settings import Settings
from automl.domain.study import Study
from automl.errors import ConfigError
from automl.runs import opening
from automl.runs.run_lease import RunLease
from automl.steps import estimator
from automl.storage.open import open_home
from automl.storage.study_log import StudyRecord
from tests import commands
from tests.commands import document_of
from tests.homes import use_home
from tests.opened_runs import DOCUMENT, FORM, OWN, call, context_of, opened, spec_with
from tests.quiet import Quiet

BERT = "airflow:automl_search:bert"
ANYBODY = "airflow:automl_search"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = use_home(tmp_path / "home", monkeypatch)
    monkeypatch.setenv("AUTOML_SOURCES", f"/absent,{tmp_path}")
    return home


def study(home: Path) -> Study:
    return StudyRecord(open_home(Settings(str(home))).study_log("digits")).refresh()


def owned_by(home: Path, owner: str) -> None:
    """Let a study have had a run of that origin, and its owner."""
    context = opened(home, "before", origin=owner)
    opening.fail_run(context, "over")
    if owner == "cli":
        document_of(automl("give", "digits", "cli", "--json"))


def automl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return commands.automl(*arguments, settings=os.environ)


# --- becoming the owner ---


@pytest.mark.parametrize("origin", [OWN, FORM, ANYBODY])
def test_the_first_dag_that_opens_a_run_becomes_the_owner_in_the_same_commit(
    home: Path, origin: str
) -> None:
    opened(home, "first", origin=origin)

    found = study(home)
    assert found.owner == Origin.of(origin)
    assert found.version == 0  # there is no study without its owner in between


@pytest.mark.parametrize("origin", ["cli", "python", "test", ""])
def test_whoever_opens_a_run_without_airflow_becomes_no_owner(home: Path, origin: str) -> None:
    opened(home, "first", origin=origin)

    assert study(home).owner is None


def test_a_study_from_before_goes_to_the_next_dag(home: Path) -> None:
    opened(home, "before", origin="cli")

    opened(home, "next", origin=FORM)

    assert study(home).owner == Origin.of(FORM)


def test_of_two_openers_at_once_one_becomes_the_owner(home: Path) -> None:
    for _ in range(5):  # both may run the step: the log alone decides
        contexts = [context_of(home, f"run-{n}", origin=o) for n, o in enumerate((FORM, BERT))]
        barrier = threading.Barrier(2)

        def open_(context: Any, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            try:
                opening.open_run(context, "snapshot")
            except ConfigError:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            wins = list(pool.map(open_, contexts))

        found = study(home)
        assert sum(wins) == 1
        assert found.owner == Origin.of((FORM, BERT)[wins.index(True)])
        assert len(found.runs) == 1
        for path in sorted((home / "studies").rglob("*.json")):
            path.unlink()


# --- refusing others ---


@pytest.mark.parametrize(
    ("owner", "opener", "command"),
    [
        (FORM, BERT, "automl give digits automl_search --user bert"),
        (FORM, ANYBODY, "automl give digits automl_search"),
        (FORM, OWN, "automl give digits automl_digits"),
        (OWN, FORM, "automl give digits automl_search --user ann"),
        (OWN, "cli", "automl give digits cli"),
        (OWN, "python", "automl give digits cli"),
        (OWN, "", "automl give digits cli"),
        ("cli", OWN, "automl give digits automl_digits"),
    ],
)
def test_a_study_of_another_is_refused_by_check_and_by_open_run(
    home: Path, owner: str, opener: str, command: str
) -> None:
    owned_by(home, owner)
    before = study(home)

    for step in ("check", "open_run"):
        with pytest.raises(ConfigError) as caught:
            call(step, "mine", origin=opener, snapshot="snapshot", worker=None, spec=valid(opener))
        owners = [p for p in caught.value.problems if p.path == "name"]
        assert len(owners) == 1, step
        assert f"`{command}`" in owners[0].message
        assert "study digits belongs to the " in owners[0].message
    assert study(home) == before
    with RunLease(context_of(home, "next")):  # the refused step does not hold the study
        pass


def valid(opener: str) -> dict[str, Any]:
    """Return the specification; estimators have no test rows."""
    extra = {"test_fraction": 0.0} if opener == "python" else {}
    return DOCUMENT | {"data": DOCUMENT["data"] | extra}


@pytest.mark.parametrize(
    ("owner", "opener"),
    [(FORM, FORM), (OWN, OWN), (ANYBODY, FORM), (ANYBODY, ANYBODY), ("cli", "cli"), ("cli", "")],
)
def test_a_study_of_ones_own_is_not_refused(home: Path, owner: str, opener: str) -> None:
    owned_by(home, owner)

    opened(home, "mine", origin=opener)

    assert study(home).open_run is not None


def test_check_names_the_owner_together_with_all_other_problems(home: Path) -> None:
    owned_by(home, OWN)

    with pytest.raises(ConfigError, match="Study digits cannot be run") as caught:
        call("check", "mine", origin=FORM, worker=None)

    assert [problem.path for problem in caught.value.problems] == ["name", "data.source"]


def test_a_run_under_way_goes_on_after_its_study_was_given_away(home: Path) -> None:
    context = context_of(home, "first", origin=OWN)
    with RunLease(context):
        opening.open_run(context, "snapshot")
        document_of(automl("give", "digits", "cli", "--json"))

        assert opening.open_run(context, "snapshot") == [0]  # a retry
    assert call("fail_run", "first", cause="x", origin=OWN) == {"state": "failed"}


def test_the_command_line_and_estimators_are_refused_before_they_prepare(
    home: Path, tmp_path: Path
) -> None:
    owned_by(home, OWN)
    np.savez(tmp_path / "rows.npz", x=np.zeros((60, 8, 8), np.uint8), y=np.arange(60) % 2)
    data = {"source": str(tmp_path / "rows.npz")}
    document = DOCUMENT | {"data": data}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(document))

    done = automl("run", str(tmp_path / "study.yaml"), "--json")

    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["type"]) == (2, "ConfigError")
    assert "`automl give digits cli`" in error["problems"][0]["message"]
    with pytest.raises(ConfigError, match="an estimator may not continue it"):
        estimator.search(Settings(str(home)), spec_with(data=data), Quiet())
    assert not (home / "datasets").exists()
    assert len(study(home).runs) == 1


# --- giving ---


def test_a_study_is_given_to_a_dag_and_back_to_the_command_line(home: Path) -> None:
    opened(home, "first", origin=FORM)

    given = document_of(automl("give", "digits", "automl_digits", "--json"))
    again = document_of(automl("give", "digits", "automl_digits", "--json"))

    assert given == {
        "schema": 1, "study": "digits", "owner": "airflow:automl_digits", "from": FORM,
        "changed": True,
    }  # fmt: skip
    assert again == given | {"from": "airflow:automl_digits", "changed": False}
    assert study(home).version == 1  # nothing was written the second time
    shown = automl("give", "digits", "cli")
    assert shown.stdout == "digits belongs to cli, before: airflow:automl_digits\n"
    (event,) = [e for v, e in open_home(Settings(str(home))).study_log("digits").read() if v == 2]
    assert (event.type, getattr(event, "by", "")) == ("study_given", getpass.getuser())
    assert study(home).owner == Origin(OriginKind.CLI)
    rows = document_of(automl("studies", "--json"))["studies"]
    assert [row["owner"] for row in rows] == ["cli"]


def test_a_study_is_given_to_a_user_of_the_form(home: Path) -> None:
    opened(home, "first", origin=OWN)

    document_of(automl("give", "digits", "automl_search", "--user", "ann", "--json"))

    assert study(home).owner == Origin.of(FORM)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("letters", "automl_digits"), "There is no study 'letters'"),
        (("digits", "a b"), "'a b' is no id of a DAG"),
        (("digits", "airflow:x"), "'airflow:x' is no id of a DAG"),
        (("digits", "automl_digits", "--user", "ann"), "--user belongs to automl_search alone"),
        (("digits", "cli", "--user", "ann"), "--user belongs to automl_search alone"),
    ],
)
def test_a_study_cannot_be_given_to_what_cannot_be(
    home: Path, arguments: tuple[str, ...], message: str
) -> None:
    opened(home, "first", origin=OWN)

    done = automl("give", *arguments, "--json")

    error = json.loads(done.stdout)["error"]
    assert done.returncode == 2
    assert message in f"{error['message']} {error['hint']}"
    assert study(home).owner == Origin.of(OWN)
    assert not (home / "studies" / "letters").exists()
