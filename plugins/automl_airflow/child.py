"""Environment that a step's process gets from Airflow: allowed variables, and S3 access."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from automl.errors import ConfigError

_ALLOWED = re.compile(
    r"PATH|HOME|LANG|LC_.*|TZ|TMPDIR|PYTHON.*|LD_LIBRARY_PATH|VIRTUAL_ENV|(OMP|MKL|CUDA|NVIDIA|AWS"
    r"|AUTOML|DASK|SSL_CERT)_.*"
)
HOME_VARIABLE, CONNECTION_VARIABLE = "AUTOML_HOME", "AUTOML_S3_CONN_ID"


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a step may see; nothing of Airflow's own is among them.

    Raises:
        ConfigError: `AUTOML_HOME` is missing or relative.
    """
    home = environment.get(HOME_VARIABLE, "")
    if not home.startswith("s3://") and not PurePosixPath(home).is_absolute():
        raise ConfigError(
            f"{HOME_VARIABLE} is {home!r}.",
            "set it to an absolute folder or s3://bucket/prefix where Airflow's workers run",
        )
    allowed = {name: value for name, value in environment.items() if _ALLOWED.fullmatch(name)}
    connection = allowed.pop(CONNECTION_VARIABLE, None)
    return {**allowed, **s3_variables(connection)} if connection else allowed


def s3_variables(connection_id: str) -> dict[str, str]:
    """Return what boto3 needs to know of an Airflow connection of type `aws`.

    Raises:
        ConfigError: the connection asks for what only Airflow's own hook can do.
    """
    from airflow.sdk import Connection

    connection = Connection.get(connection_id)
    extra = connection.extra_dejson
    if extra.get("role_arn"):
        raise ConfigError(
            f"Connection {connection_id} has role_arn.",
            "put the role into an AWS profile and set AWS_PROFILE instead",
        )
    service = extra.get("service_config", {}).get("s3", {})
    found = {
        "AWS_ACCESS_KEY_ID": connection.login,
        "AWS_SECRET_ACCESS_KEY": connection.password,
        "AWS_SESSION_TOKEN": extra.get("aws_session_token"),
        "AWS_DEFAULT_REGION": extra.get("region_name"),
        "AWS_ENDPOINT_URL": service.get("endpoint_url") or extra.get("endpoint_url"),
    }
    return {name: value for name, value in found.items() if value}
