"""`automl_<study>`: one DAG per study file in `AUTOML_STUDIES` (default: the folder beside)."""

from __future__ import annotations

from pathlib import Path

from automl_airflow.dag_builder import study_dags
from automl_airflow.study_files import studies_folder

for dag in study_dags(studies_folder(Path(__file__).parent / "studies")):
    globals()[dag.dag_id] = dag
