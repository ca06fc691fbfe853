"""`automl_search`: one run of any study, from the trigger form, REST or the command line."""

from __future__ import annotations

from pathlib import Path

from automl_airflow.dag_builder import search_dag
from automl_airflow.study_files import studies_folder

automl_search = search_dag(studies_folder(Path(__file__).parent / "studies"))
