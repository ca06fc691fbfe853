"""The specification of a run: `check` takes it from form or file, later tasks need neither."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from automl.domain.checked_run import CheckedRun
from automl.steps.study_file import load_study_file
from tests.operators import CHECKED, api_server, context

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")

HOSTILE = "{{ 7*7 }}"
TOLD = "the file counts from the next run"
STUDY = "name: leaves\ntask: image_classification\ndata: {source: x.csv}\n"


@pytest.fixture(autouse=True)
def pools(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An API server that misses no pool."""
    with api_server() as url:
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", url)
        yield


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A study file."""
    path = tmp_path / "leaves.yaml"
    path.write_text(STUDY)
    return path


def nightly(**more: Any) -> Any:
    """Return what Airflow gives a task of the study's own DAG."""
    given = context()
    given["dag_run"].dag_id = "automl_leaves"
    return given | more


def checked_as(path: Path) -> dict[str, Any]:
    return CHECKED | {"spec": load_study_file(path).spec_hash}


# --- check ---


@pytest.mark.parametrize("version", [None, 3])
def test_check_gets_the_specification_that_the_form_describes(
    operator: Any, version: int | None
) -> None:
    payload = operator("check").execute(context(continue_version=version))["payload"]

    assert payload["spec"]["data"]["source"] == "/data/leaves.csv"
    assert payload["spec"]["final_fit"]["from"] == version
    assert payload["study_file"] is None


def test_check_alone_gets_the_study_file(operator: Any, file: Path) -> None:
    payload = operator("check", study_file=str(file)).execute(nightly())["payload"]

    assert payload["study_file"] == str(file)
    assert payload["origin"] == "airflow:automl_leaves"


def test_check_gets_the_specification_that_a_dag_was_given(operator: Any) -> None:
    document = {"name": HOSTILE, "task": "image_classification", "data": {"source": HOSTILE}}
    given = nightly()
    given["dag_run"].conf = {"anything": "of the team's own"}
    with pytest.raises(Exception, match="does not match"):  # as it is, not rendered
        operator("check", document=document).execute(given)

    payload = operator("check", document=document | {"name": "leaves"}).execute(given)["payload"]
    assert payload["spec"]["data"]["source"] == HOSTILE
    assert (payload["spec"]["name"], payload["study_file"]) == ("leaves", None)
    assert payload["origin"] == "airflow:automl_leaves"


@pytest.mark.parametrize("user", [None, ""])
def test_a_run_of_nobody_names_no_user(operator: Any, user: str | None) -> None:
    given = context()
    given["dag_run"].triggering_user_name = user

    assert operator("check").execute(given)["payload"]["origin"] == "airflow:automl_search"


# --- later tasks ---


@pytest.mark.parametrize("step", ["prepare", "choose", "final_fit", "export", "promote"])
def test_a_later_task_names_the_study_and_brings_no_specification(
    operator: Any, file: Path, step: str
) -> None:
    task = operator(step, study_file=str(file), checked=checked_as(file))

    payload = task.execute(nightly())["payload"]

    assert (payload["study"], payload["spec"], payload["study_file"]) == ("leaves", None, None)


def gone(path: Path) -> None:
    path.unlink()


def renamed(path: Path) -> None:
    path.write_text(STUDY.replace("leaves", "grass"))


def changed(path: Path) -> None:
    path.write_text(STUDY + "search: {workers: 3}\n")


def broken(path: Path) -> None:
    path.write_text("name: [unclosed\n")


def deep(path: Path) -> None:
    path.write_text("[" * 3000)


@pytest.mark.parametrize("change", [gone, renamed, changed, broken, deep])
def test_a_file_that_changes_under_way_counts_from_the_next_run(
    operator: Any, file: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Path], None]
) -> None:
    task = operator("final_fit", study_file=str(file), checked=checked_as(file))
    change(file)

    payload = task.execute(nightly())["payload"]

    said = capsys.readouterr().out
    assert payload["study"] == "leaves"
    assert said.count("[warning  ] The study file ") == 1
    assert said.count(TOLD) == 1


def test_a_file_that_stays_is_not_mentioned(
    operator: Any, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = operator("final_fit", study_file=str(file), checked=checked_as(file))

    task.execute(nightly())

    assert TOLD not in capsys.readouterr().out


def test_later_slices_do_not_warn_again(
    operator: Any, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = operator("prepare", study_file=str(file), checked=checked_as(file))
    gone(file)

    task.execute(nightly(task_reschedule_count=1))

    assert TOLD not in capsys.readouterr().out


@pytest.mark.parametrize("left", [None, {"study": "leaves", "home": "/home"}, "text"])
def test_what_an_earlier_version_checked_has_to_be_checked_again(
    operator: Any, left: object
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match="clear the task check, and then this one"):
        operator("choose", checked=left).execute(context())


def test_the_limit_of_a_process_is_what_check_returned(
    operator: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from airflow.sdk.exceptions import AirflowRescheduleException

    limits = CHECKED["limits"] | {"export": 2.0}

    with pytest.raises(AirflowRescheduleException):
        operator("export", "sleep", checked=CHECKED | {"limits": limits}).execute(context())
    assert "Step export did not end within 2 s" in capsys.readouterr().out


def test_what_check_returns_comes_back_from_json_and_is_small(file: Path) -> None:
    spec = load_study_file(file)
    checked = CheckedRun.of(spec, "/home", CHECKED["limits"])

    assert CheckedRun.from_json(checked.to_json()) == checked
    assert checked.time_limit == 7200
    assert len(str(checked.to_json())) < 1000


# --- nothing is a template ---


class Output:
    """An output of a task, as `XComArg` has them."""

    def __init__(self, value: object) -> None:
        self._value = value

    def iter_references(self) -> list[Any]:
        """Return the tasks that it comes from."""
        return []

    def resolve(self, context: Mapping[str, Any]) -> object:
        """Return the value."""
        return self._value


def test_no_value_of_a_user_is_rendered(operator: Any, tmp_path: Path) -> None:
    folder = tmp_path / HOSTILE
    folder.mkdir()
    file = folder / f"{HOSTILE}.yaml"
    file.write_text(STUDY.replace("x.csv}", f"x.csv, label: '{HOSTILE}'}}"))
    prepared, checked = Output({"snapshot": HOSTILE}), CHECKED | {"study": HOSTILE}
    given = context(label=HOSTILE, source=f"/data/{HOSTILE}.csv")
    given["dag_run"].conf = {"label": HOSTILE}
    check = operator("check", study_file=str(file), studies=str(folder))
    form = operator("check", studies=str(tmp_path))
    opening = operator("open_run", prepared=prepared, checked=checked)

    for task in (check, form, opening):
        task.render_template_fields(given)

    assert check.execute(nightly())["payload"]["study_file"] == str(file)
    assert form.execute(given)["payload"]["spec"]["data"]["label"] == HOSTILE
    payload = opening.execute(given)["payload"]
    assert (payload["snapshot"], payload["study"]) == (HOSTILE, HOSTILE)
