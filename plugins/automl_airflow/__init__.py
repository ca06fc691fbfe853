"""Airflow adapters of the AutoML platform: the operator and the DAG builders."""
