"""`automl_<study>`: one DAG per study file in `AUTOML_STUDIES` (default: the folder beside)."""

from __future__ import annotations

from pathlib import Path

from automl_airflow.dag_builder import study_dag
from automl_airflow.study_files import read_study_files, studies_folder

for file in read_study_files(studies_folder(Path(__file__).parent / "studies")):
    globals()[file.dag_id] = study_dag(file)
