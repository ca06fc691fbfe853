"""The operator: what it gives its child, and what it makes of the child's end."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.operators import context

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")


def test_nothing_that_a_user_wrote_is_a_template() -> None:
    from automl_airflow.operator import StepOperator

    assert set(StepOperator.template_fields) <= {
        "worker",
        "prepared",
        "checked",
    }  # outputs of tasks


def test_the_child_gets_the_payload_and_no_secret_of_airflow(operator: Any) -> None:
    result = operator("prepare").execute(context())

    payload = {key: value for key, value in result["payload"].items() if value is not None}
    assert payload == {
        "study": "leaves",
        "run": "automl_search.manual__2026_01",
        "origin": "airflow:automl_search:anna",
    }
    assert not [name for name in result["env"] if name.startswith("AIRFLOW")]


def test_the_address_of_the_study_log_travels_in_the_environment_alone(
    operator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOML_STUDY_LOG", "postgresql://anna:hidden@db/automl")
    result = operator("prepare").execute(context())

    assert result["study_log"] == "postgresql://anna:hidden@db/automl"
    assert "hidden" not in str(result["argv"]) + str(result["payload"])


def written(text: str) -> list[tuple[str, str]]:
    """Return level and words of the lines of a task's log."""
    found = (
        re.match(r"\S+ \[(\w+) *\] (.*?) +\[airflow\.task", line) for line in text.splitlines()
    )
    return [(each[1], each[2]) for each in found if each]


def test_lines_of_the_child_keep_their_level(
    operator: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from airflow.sdk.exceptions import AirflowException

    with pytest.raises(AirflowException):
        operator("prepare", "logs").execute(context())

    lines = written(capsys.readouterr().out)
    begin = lines.index(("info", "begins"))
    assert lines[begin + 1 : begin + 5] == [
        ("warning", "look"), ("warning", "here"), ("info", "goes on"),
        ("error", "Traceback (most recent call last):"),
    ]  # fmt: skip
    assert lines[-1] == ("error", "ValueError: a bug")


def test_lines_beyond_the_cap_are_counted_and_the_last_ones_kept(
    operator: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    operator("prepare", "chatty").execute(context())

    lines = written(capsys.readouterr().out)
    shown = [text for _, text in lines if text.startswith("line ")]
    assert shown == [f"line {n}" for n in [*range(5000), *range(19800, 20000)]]
    assert ("warning", "14800 lines are left out here") in lines


def test_the_end_of_the_search_is_a_success_with_a_label(operator: Any) -> None:
    given = context()

    assert operator("run_worker", "ended", worker=0).execute(given)["state"] == "search_ended"
    assert given["trial_label"] == "trials 0, 3"


def test_an_error_that_stays_is_not_retried_and_lists_all_problems(operator: Any) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=r"(?s)a\.b: one.*c: two"):
        operator("prepare", "refused").execute(context())


def test_a_relative_home_is_refused(operator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    task = operator("prepare")
    monkeypatch.setenv("AUTOML_HOME", "automl-home")
    with pytest.raises(AirflowFailException, match="AUTOML_HOME is 'automl-home'"):
        task.execute(context())


def test_check_refuses_unknown_keys_and_owned_names(operator: Any, tmp_path: Path) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    given = context()
    given["dag_run"].conf = {"max_trails": 3}
    with pytest.raises(AirflowFailException, match="max_trails: unknown"):
        operator("check").execute(given)

    (tmp_path / "leaves.yaml").write_text(
        "name: leaves\ntask: image_classification\ndata: {source: x.csv}\n"
    )
    with pytest.raises(AirflowFailException, match=r"owned by .*leaves\.yaml.*automl_leaves"):
        operator("check", studies=str(tmp_path)).execute(context())


def test_check_lists_the_problems_of_a_broken_file(operator: Any) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    task = operator("check", study_file="/x.yaml", problems=["data.sorce: unknown key", "more"])
    with pytest.raises(AirflowFailException, match=r"(?s)data\.sorce: unknown key.*more"):
        task.execute(context())


def test_relative_paths_of_a_study_file_start_at_its_folder(tmp_path: Path) -> None:
    from automl.errors import ConfigError
    from automl.steps.study_file import load_study_file

    path = tmp_path / "s.yaml"
    path.write_text("name: s\ntask: image_classification\ndata: {source: d/x.csv}\n")
    assert load_study_file(path).data.source == str(tmp_path / "d/x.csv")

    path.write_text("name: s\nname: t\n")
    with pytest.raises(ConfigError, match="'name' is written twice"):
        load_study_file(path)


def test_what_prepare_returned_goes_to_open_run(operator: Any) -> None:
    prepared = {"snapshot": "abc", "counts": {}, "classes": 3}

    payload = operator("open_run", prepared=prepared).execute(context())["payload"]
    assert payload["snapshot"] == "abc"
