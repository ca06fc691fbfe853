#!/usr/bin/env bash
# Makes the databases of the study logs and of Celery's results, and their users, when PostgreSQL starts for
# the first time. Workers know these users alone: nothing of Airflow's own database.
set -euo pipefail

# The script's text reaches psql by its input: the password is in no command line.
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres << EOF
CREATE ROLE studies LOGIN PASSWORD '$(< /run/secrets/study_log_password)';
CREATE DATABASE studies OWNER studies;
CREATE ROLE celery LOGIN PASSWORD '$(< /run/secrets/celery_results_password)';
CREATE DATABASE celery OWNER celery;
REVOKE CONNECT ON DATABASE airflow, celery, studies FROM PUBLIC;
EOF
