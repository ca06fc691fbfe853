"""Five hundred broken study files beside ten whole ones, under a real DAG processor."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from automl_airflow.study_files import StudyFile, read_study_files

from tests.hostile_files import GOOD, good_name, write_good_files, write_hostile_files

DAGS = Path(__file__).parents[2] / "dags"
HOSTILE = 500
TEMPLATES = {"{{ trial_label }}"}  # what the platform itself renders
OUTPUT = (  # Airflow's own way of writing the output of a task
    "{{{{ task_instance.xcom_pull(task_ids='prepare', dag_id='{}', key='return_value') }}}}"
)


@dataclass(frozen=True, slots=True)
class Seen:
    """The files, and what the DAG processor made of them: its rows by DAG id."""

    files: list[StudyFile]
    rows: dict[str, dict[str, Any]]
    import_errors: list[str]
    serialized: dict[str, dict[str, Any]]
    cpu_s: float


def cpu_of_children_s() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def airflow(home: Path, studies: Path, *command: str) -> None:
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__COMPRESS_SERIALIZED_DAGS": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AUTOML_STUDIES": str(studies),
    }
    done = subprocess.run(
        [sys.executable, "-m", "airflow", *command],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    studies, home = tmp_path_factory.mktemp("s"), tmp_path_factory.mktemp("airflow")
    write_good_files(studies)
    write_hostile_files(studies, HOSTILE)
    airflow(home, studies, "db", "migrate")
    before_s = cpu_of_children_s()
    airflow(home, studies, "dag-processor", "--num-runs", "1")
    cpu_s = cpu_of_children_s() - before_s
    with sqlite3.connect(home / "airflow.db") as database:
        database.row_factory = sqlite3.Row
        rows = [dict(row) for row in database.execute("SELECT * FROM dag")]
        errors = [row["stacktrace"] for row in database.execute("SELECT * FROM import_error")]
        stored = database.execute("SELECT dag_id, data FROM serialized_dag").fetchall()
    return Seen(
        files=read_study_files(studies),
        rows={row["dag_id"]: row for row in rows},
        import_errors=errors,
        serialized={row["dag_id"]: json.loads(row["data"]) for row in stored},
        cpu_s=cpu_s,
    )


def test_every_file_has_a_dag_of_its_own(seen: Seen) -> None:
    assert seen.import_errors == []
    assert len(seen.files) == GOOD + HOSTILE
    assert {file.dag_id for file in seen.files} | {"automl_search"} == seen.rows.keys()
    assert len(seen.rows) == GOOD + HOSTILE + 1
    assert seen.serialized.keys() == seen.rows.keys()
    assert not any(row["is_stale"] or row["has_import_errors"] for row in seen.rows.values())


def test_whole_files_are_untouched(seen: Seen) -> None:
    whole = {file.dag_id: file.path.name for file in seen.files if file.spec is not None}

    assert whole == {f"automl_{good_name(n)}": f"b-{n}.yaml" for n in range(GOOD)}
    for number in range(GOOD):
        row = seen.rows[f"automl_{good_name(number)}"]
        assert row["timetable_summary"] == f"{number} 3 * * *"
        assert row["next_dagrun_create_after"] is not None


def test_every_broken_file_has_a_check_that_says_why(seen: Seen) -> None:
    for file in seen.files:
        assert (file.spec is None) == bool(file.problems), file.path
        assert all(str(problem).strip() for problem in file.problems)


def test_all_are_parsed_in_ten_seconds(seen: Seen) -> None:
    wall_s = seen.rows["automl_good-0"]["last_parse_duration"]

    # a busy machine takes longer, but not more; starting Airflow and its database are in the latter
    assert wall_s < 10 or seen.cpu_s < 20


def test_nothing_that_a_user_wrote_is_rendered(seen: Seen) -> None:
    for dag_id, stored in seen.serialized.items():
        for task in stored["dag"]["tasks"]:
            fields = task["__var"]
            rendered = {str(fields.get(name)) for name in fields["template_fields"]}
            assert rendered <= {"None", OUTPUT.format(dag_id)}
            label = fields.get("partial_kwargs", {}).get("map_index_template")
            assert label is None or label in TEMPLATES
