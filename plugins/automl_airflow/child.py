"""Environment that a step's process gets from Airflow: allowed variables, S3 and the study log."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlencode

from automl.domain.settings import STUDY_LOG, STUDY_LOG_CONNECTION, study_log_form
from automl.errors import ConfigError
from automl_airflow.aws import (
    S3_CONNECTION,
    airflow_connection,
    parsed_extra,
    s3_variables,
)

_ALLOWED = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|LC_.*|TZ|TMPDIR|XDG_CACHE_HOME|VIRTUAL_ENV|PYTHON.*"
    r"|LD_LIBRARY_PATH|LD_PRELOAD|MALLOC_.*"
    # proxies and certificate authorities, which every library reads by itself
    r"|((HTTP|HTTPS|ALL|NO)_PROXY)|((http|https|all|no)_proxy)"
    r"|SSL_CERT_.*|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    # libpq: files, encryption and patience; the address and the password come with the study log
    r"|PGPASSFILE|PGSSL.*|PGSERVICE|PGSERVICEFILE|PGCONNECT_TIMEOUT|PGOPTIONS|PGAPPNAME"
    r"|PGTARGETSESSIONATTRS|PGCHANNELBINDING|PGREQUIREAUTH|PGGSS.*|PGKRBSRVNAME|KRB5.*"
    # threads and devices
    r"|(OMP|GOMP|KMP|MKL|OPENBLAS|BLIS|NUMEXPR|CUDA|CUDNN|CUBLAS|NVIDIA|NCCL|TORCH|PYTORCH"
    r"|TORCHINDUCTOR|TRITON|HIP|ROCR|HSA)_.*"
    r"|(AWS|AUTOML|DASK)_.*"
    # processes that name themselves leave their environment to be read by who ends them
    r"|SPT_NOENV"
)
_LIBPQ_OPTIONS = frozenset(
    {
        "sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslnegotiation", "options",
        "connect_timeout", "application_name", "target_session_attrs", "channel_binding",
        "gssencmode", "krbsrvname", "keepalives", "keepalives_idle", "keepalives_interval",
        "keepalives_count", "tcp_user_timeout", "require_auth",
    }
)  # fmt: skip
HOME_VARIABLE = "AUTOML_HOME"


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a step may see; nothing of Airflow's own is among them.

    Raises:
        ConfigError: `AUTOML_HOME` is missing or relative, several variables name the study log,
            or a connection cannot be used.
        StorageError: Airflow does not answer.
    """
    home = environment.get(HOME_VARIABLE, "")
    if not home.startswith("s3://") and not PurePosixPath(home).is_absolute():
        raise ConfigError(
            f"{HOME_VARIABLE} is {home!r}.",
            "set it to an absolute folder or s3://bucket/prefix where Airflow's workers run",
        )
    allowed = {name: value for name, value in environment.items() if _ALLOWED.fullmatch(name)}
    study_log = allowed.pop(STUDY_LOG_CONNECTION, None)
    if study_log_form(environment) == STUDY_LOG_CONNECTION and study_log:
        allowed[STUDY_LOG] = study_log_address(study_log)
    connection = allowed.pop(S3_CONNECTION, None)
    if connection:
        own = {name: value for name, value in allowed.items() if not name.startswith("AWS_")}
        allowed = {**own, **s3_variables(connection, allowed)}
    return allowed


def study_log_address(connection_id: str) -> str:
    """Return the address of the database that an Airflow connection names, its password included.

    Raises:
        ConfigError: there is no such connection, or it is none to PostgreSQL or SQLite.
    """
    found = airflow_connection(connection_id, STUDY_LOG_CONNECTION, "postgres or sqlite")
    if found.conn_type == "sqlite":
        return f"sqlite:///{found.host or found.schema or ''}"
    if found.conn_type not in {"postgres", "postgresql"}:
        raise ConfigError(
            f"Connection {connection_id} is of type {found.conn_type}.",
            f"{STUDY_LOG_CONNECTION} takes one of type postgres or sqlite",
        )
    return _postgresql_address(found, _libpq_options(connection_id, found))


def _libpq_options(connection_id: str, connection: Any) -> dict[str, str]:
    extra = parsed_extra(connection_id, connection)
    unknown = sorted(set(extra) - _LIBPQ_OPTIONS)
    if unknown:
        raise ConfigError(
            f"The extra of connection {connection_id} has {', '.join(unknown)}.",
            "the study log understands options of libpq only, such as sslmode and sslrootcert",
        )
    return {key: str(value) for key, value in extra.items()}


def _postgresql_address(connection: Any, options: dict[str, str]) -> str:
    host = connection.host or ""
    if host.startswith("/"):  # the folder of a socket
        host, options = "", {"host": host, **options}
    elif ":" in host:
        host = f"[{host}]"
    login = quote(connection.login or "", safe="")
    if connection.password:
        login += ":" + quote(connection.password, safe="")
    place = f"{login}@{host}" if login else host
    port = f":{connection.port}" if connection.port else ""
    query = f"?{urlencode(options)}" if options else ""
    return f"postgresql://{place}{port}/{quote(connection.schema or '', safe='')}{query}"
