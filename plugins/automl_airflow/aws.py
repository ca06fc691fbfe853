"""Access to S3 by a connection of Airflow: what boto3, in a process of its own, must know of it.

The process gets the connection's identity or the worker's, never a mixture: the worker's keys,
token, profile and endpoint are taken away before those of the connection are put in.
"""

from __future__ import annotations

import configparser
import functools
import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl.errors import ConfigError, Problem, StorageError

PROFILE, _SOURCE = "automl-connection", "automl-connection-source"
S3_CONNECTION, WORKER_IDENTITY = "AUTOML_S3_CONN_ID", "worker_identity"
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_KEYS = {
    "AWS_ACCESS_KEY_ID": "aws_access_key_id",
    "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
    "AWS_SESSION_TOKEN": "aws_session_token",
}
# Variables of the worker that say neither who asks nor whom.
_NEUTRAL = re.compile(
    r"AWS_(CA_BUNDLE|DEFAULT_REGION|REGION|MAX_ATTEMPTS|RETRY_MODE|STS_REGIONAL_ENDPOINTS"
    r"|REQUEST_CHECKSUM_CALCULATION|RESPONSE_CHECKSUM_VALIDATION|EC2_METADATA_DISABLED"
    r"|METADATA_SERVICE_.*|SDK_UA_APP_ID)"
)
_FILES = ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")
_NO_HINT = "remove it; see docs/s3.md for what a connection may say"
_UNSUPPORTED = {
    "config_kwargs": "it is meant for boto3's clients in Airflow; use variables such as "
    "AWS_MAX_ATTEMPTS or a profile instead",
    "session_kwargs": "use login, password, region_name and profile_name instead",
    "s3_config_file": "use profile_name instead",
    "federation": "use profile_name instead",
    "assume_role_with_saml": "use profile_name instead",
    "assume_role_with_web_identity": "use profile_name instead",
}
_ROLE_KEYS = {
    "RoleSessionName": "role_session_name",
    "ExternalId": "external_id",
    "DurationSeconds": "duration_seconds",
}


@dataclass(frozen=True, slots=True)
class AwsConnection:
    """Content of a connection of type `aws`.

    Attributes:
        name: id of the connection.
        keys: access key, secret and token, by their names in a profile; empty without a login.
        extra: the other settings.
    """

    name: str
    keys: Mapping[str, str]
    extra: Mapping[str, Any]

    @property
    def endpoint(self) -> str | None:
        """The address of S3, if the connection names one."""
        of_s3 = self.extra.get("service_config", {}).get("s3", {}).get("endpoint_url")
        return of_s3 or self.extra.get("endpoint_url") or None

    def refused(self, path: str, why: str) -> ConfigError:
        """Return the error that says what of the connection cannot be used."""
        return ConfigError(
            f"Connection {self.name} cannot be used for S3.", _NO_HINT, [Problem(path, why)]
        )


def s3_variables(connection_id: str, worker: Mapping[str, str]) -> dict[str, str]:
    """Return the AWS variables of a process that reaches S3 by an Airflow connection.

    Args:
        connection_id: of a connection of type `aws`.
        worker: the worker's environment.

    Raises:
        ConfigError: there is no such connection, or it says what boto3 would not follow.
    """
    connection = _read(connection_id)
    return {**_identity(connection, worker), **_settings(connection)}


def airflow_connection(connection_id: str, variable: str, kind: str) -> Any:
    """Return a connection of Airflow.

    Args:
        connection_id: its id.
        variable: the variable that names it.
        kind: the type that it should have.

    Raises:
        ConfigError: there is none.
        StorageError: Airflow does not answer.
    """
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException, AirflowRuntimeError

    try:
        return Connection.get(connection_id)
    except AirflowNotFoundException as error:
        raise ConfigError(
            f"There is no connection {connection_id}, which {variable} names.",
            f"create it, of type {kind}",
        ) from error
    except AirflowRuntimeError as error:
        raise StorageError(
            f"Connection {connection_id} cannot be looked up: {error}.",
            "look after Airflow's API server, or what keeps its secrets",
        ) from error


def _read(connection_id: str) -> AwsConnection:
    found = airflow_connection(connection_id, S3_CONNECTION, "aws")
    extra = parsed_extra(connection_id, found)
    given = {
        "aws_access_key_id": found.login or extra.get("aws_access_key_id"),
        "aws_secret_access_key": found.password or extra.get("aws_secret_access_key"),
        "aws_session_token": extra.get("aws_session_token"),
    }
    keys = {name: str(value) for name, value in given.items() if value}
    connection = AwsConnection(connection_id, keys, extra)
    if found.conn_type != "aws":
        raise connection.refused("conn_type", f"it is {found.conn_type!r}, not 'aws'")
    _check(connection)
    return connection


def parsed_extra(connection_id: str, connection: Any) -> dict[str, Any]:
    """Return the extra of an Airflow connection, which Airflow itself drops if it is not JSON.

    Raises:
        ConfigError: it is no JSON object; the message does not show it.
    """
    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise ConfigError(
            f"The extra of connection {connection_id} is no JSON object.", "correct it"
        )
    connection.extra_dejson  # noqa: B018 - Airflow then masks its secrets in logs
    return extra


def _check(connection: AwsConnection) -> None:
    """Refuse what would be ignored, and what contradicts itself."""
    extra = connection.extra
    problems = [
        Problem(f"extra.{key}", f"not supported: {instead}")
        for key, instead in _UNSUPPORTED.items()
        if extra.get(key)
    ]
    problems += _service_problems(extra.get("service_config"), extra)
    method = extra.get("assume_role_method", "assume_role")
    if method != "assume_role":
        problems.append(Problem("extra.assume_role_method", f"{method!r} is not supported"))
    verify = extra.get("verify")
    if verify is False or str(verify).lower() == "false":
        why = "false is refused: name the file with the authority's certificate instead"
        problems.append(Problem("extra.verify", why))
    given = set(connection.keys)
    if given and not {"aws_access_key_id", "aws_secret_access_key"} <= given:
        why = "access key and secret belong together; one of them is missing"
        problems.append(Problem("login", why))
    sources = ["login"] if given else []
    sources += [key for key in ("profile_name", WORKER_IDENTITY) if extra.get(key)]
    if len(sources) > 1:
        problems.append(Problem("login", f"{' and '.join(sources)} contradict each other"))
    if not sources and not extra.get("role_arn"):
        why = (
            "it is empty; enter an access key with its secret, or say in the extra whose identity "
            f'counts: profile_name, role_arn, or "{WORKER_IDENTITY}": true'
        )
        problems.append(Problem("login", why))
    if problems:
        raise ConfigError(
            f"Connection {connection.name} cannot be used for S3.", _NO_HINT, problems
        )


def _service_problems(services: Any, extra: Mapping[str, Any]) -> list[Problem]:
    if services is None:
        return []
    if not isinstance(services, dict) or not all(isinstance(s, dict) for s in services.values()):
        return [Problem("extra.service_config", "it is not an object of objects")]
    s3 = services.get("s3", {})
    problems = [
        Problem(f"extra.service_config.{name}.{key}", "not supported")
        for name in ("s3", "sts")
        for key in ("config_kwargs", "botocore_config", "verify", "region_name", "api_version")
        if services.get(name, {}).get(key) is not None
    ]
    one, other = s3.get("endpoint_url"), extra.get("endpoint_url")
    if one and other and one != other:
        why = f"{one} contradicts extra.endpoint_url, which is {other}"
        problems.append(Problem("extra.service_config.s3.endpoint_url", why))
    return problems


def _settings(connection: AwsConnection) -> dict[str, str]:
    """Return what the connection says besides whose identity counts."""
    extra, found = connection.extra, {}
    if extra.get("region_name"):
        found["AWS_DEFAULT_REGION"] = str(extra["region_name"])
    if connection.endpoint:
        # of S3 alone, as in Airflow: STS, which gives roles, has an address of its own
        found["AWS_ENDPOINT_URL_S3"] = connection.endpoint
        found["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"] = "false"
    if sts := extra.get("service_config", {}).get("sts", {}).get("endpoint_url"):
        found["AWS_ENDPOINT_URL_STS"] = sts
    verify = extra.get("verify")
    if isinstance(verify, str) and verify.lower() != "true":
        if not Path(verify).is_file():
            raise connection.refused("extra.verify", f"{verify!r} is no file on this worker")
        found["AWS_CA_BUNDLE"] = verify
    return found


def _identity(connection: AwsConnection, worker: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that say who asks; the worker's only where the connection wants it."""
    neutral = {name: value for name, value in worker.items() if _NEUTRAL.fullmatch(name)}
    files = {name: worker[name] for name in _FILES if worker.get(name)}
    extra = connection.extra
    if extra.get("role_arn"):
        return {**neutral, **_role(connection, worker, files)}
    if connection.keys:
        # nor does the worker's default profile lend an endpoint
        nothing = dict.fromkeys(_FILES, os.devnull)
        variables = {variable: connection.keys.get(key) for variable, key in _KEYS.items()}
        return {**neutral, **nothing, **{k: v for k, v in variables.items() if v}}
    if extra.get("profile_name"):
        return {**neutral, **files, "AWS_PROFILE": str(extra["profile_name"])}
    return _worker_identity(connection, worker)


def _worker_identity(connection: AwsConnection, worker: Mapping[str, str]) -> dict[str, str]:
    named = next((worker[name] for name in _ENDPOINTS if worker.get(name)), None)
    if connection.endpoint and named and named != connection.endpoint:
        raise connection.refused(
            "extra.endpoint_url",
            f"{connection.endpoint} contradicts the worker's, which is {named}",
        )
    return {name: value for name, value in worker.items() if name.startswith("AWS_")}


def _role(
    connection: AwsConnection, worker: Mapping[str, str], files: Mapping[str, str]
) -> dict[str, str]:
    """Return variables by which boto3 takes the role on, and takes it on again in time."""
    sections, kept = _role_source(connection, worker)
    extra = connection.extra
    role = {"role_arn": str(extra["role_arn"]), **sections.pop(PROFILE)}
    kwargs = dict(extra.get("assume_role_kwargs") or {})
    if extra.get("external_id"):
        kwargs.setdefault("ExternalId", extra["external_id"])
    for key, value in kwargs.items():
        if key not in _ROLE_KEYS:
            raise connection.refused(f"extra.assume_role_kwargs.{key}", "not supported")
        role[_ROLE_KEYS[key]] = str(value)
    own = _read_config(files.get("AWS_CONFIG_FILE"))
    text = own + _config_text({f"profile {PROFILE}": role, **sections})
    return {
        **files,
        **kept,
        "AWS_PROFILE": PROFILE,
        "AWS_CONFIG_FILE": private_file(text, os.getpid()),
    }


def _role_source(
    connection: AwsConnection, worker: Mapping[str, str]
) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Return the sections of a profile's source, in boto3's own order, and variables that it needs.

    boto3 prefers keys in the environment to any profile, so they move into a section.
    """
    source, section = {"source_profile": _SOURCE}, f"profile {_SOURCE}"
    if connection.keys:
        return {PROFILE: source, section: dict(connection.keys)}, {}
    if name := connection.extra.get("profile_name"):
        return {PROFILE: {"source_profile": str(name)}}, {}
    if worker.get("AWS_ACCESS_KEY_ID"):
        keys = {key: worker[variable] for variable, key in _KEYS.items() if worker.get(variable)}
        return {PROFILE: source, section: keys}, {}
    if worker.get("AWS_PROFILE"):
        return {PROFILE: {"source_profile": worker["AWS_PROFILE"]}}, {}
    if worker.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        token = {
            "role_arn": worker.get("AWS_ROLE_ARN", ""),
            "web_identity_token_file": worker["AWS_WEB_IDENTITY_TOKEN_FILE"],
        }
        return {PROFILE: source, section: token}, {}
    container = {k: v for k, v in worker.items() if k.startswith("AWS_CONTAINER_")}
    if container:
        return {PROFILE: {"credential_source": "EcsContainer"}}, container
    return {PROFILE: {"credential_source": "Ec2InstanceMetadata"}}, {}


def _read_config(name: str | None) -> str:
    """Return the worker's own configuration, which may hold the source's profile."""
    path = Path(name or "~/.aws/config").expanduser()
    try:
        return path.read_text() + "\n"
    except OSError:
        return ""


def _config_text(sections: Mapping[str, Mapping[str, str]]) -> str:
    parser = configparser.RawConfigParser()
    parser.read_dict(sections)
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()


@functools.cache
def private_file(text: str, pid: int) -> str:
    """Return the path of a file in memory that lives as long as process `pid`, which is this one.

    Its child processes and theirs read it, other users cannot, and nothing stays on a disk.
    """
    descriptor = os.memfd_create("automl-aws-config", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(descriptor), "w") as file:
        file.write(text)
    return f"/proc/{pid}/fd/{descriptor}"
