"""Environment of a step's process under Airflow, and access to S3 by a connection."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from automl.domain.settings import Settings
from automl.errors import ConfigError, StorageError

os.environ.setdefault("AIRFLOW_HOME", "/tmp/automl-test-airflow")  # noqa: S108
pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")

HOME = {"AUTOML_HOME": "/home"}
WORKER = {
    **HOME,
    "AUTOML_S3_CONN_ID": "store",
    "AWS_ACCESS_KEY_ID": "worker-key",
    "AWS_SECRET_ACCESS_KEY": "worker-secret",
    "AWS_SESSION_TOKEN": "worker-token",
    "AWS_PROFILE": "worker",
    "AWS_ENDPOINT_URL": "http://worker",
    "AWS_ENDPOINT_URL_S3": "http://worker-s3",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/token",
    "AWS_ROLE_ARN": "arn:aws:iam::1:role/worker",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/worker",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_CA_BUNDLE": "/ca.pem",
}
KEYS = {"login": "key", "password": "se/cret"}


def child(environment: Mapping[str, str]) -> dict[str, str]:
    from automl_airflow.child import child_environment

    return child_environment(environment)


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(name: str = "store", conn_type: str = "aws", **content: Any) -> None:
        text = json.dumps({"conn_type": conn_type, **content})
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", text)

    return make


@pytest.mark.parametrize(
    "name",
    [
        "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy",
        "no_proxy", "all_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "PGPASSFILE", "PGSSLROOTCERT", "PGSSLMODE",
        "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "NCCL_DEBUG",
        "PYTORCH_CUDA_ALLOC_CONF", "TORCHINDUCTOR_CACHE_DIR", "NVIDIA_DRIVER_CAPABILITIES",
        "LD_LIBRARY_PATH", "USER", "AWS_SESSION_TOKEN", "DASK_SCHEDULER_ADDRESS",
    ],
)  # fmt: skip
def test_a_child_gets_what_networks_databases_and_devices_need(name: str) -> None:
    assert child({**HOME, name: "value"})[name] == "value"


@pytest.mark.parametrize(
    "name",
    [
        "AIRFLOW_HOME", "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW_CONN_STORE", "AIRFLOW_VAR_X", "PGPASSWORD",
        "_AIRFLOW_PROCESS_CONTEXT", "GITHUB_TOKEN", "CELERY_BROKER_URL", "SLACK_TOKEN",
    ],
)  # fmt: skip
def test_a_child_gets_no_secret_of_airflow_or_others(name: str) -> None:
    assert name not in child({**HOME, name: "secret"})


def test_the_keys_of_a_connection_never_meet_the_workers_identity(connection: Any) -> None:
    connection(**KEYS, extra={"region_name": "us-east-2", "endpoint_url": "http://own"})

    found = child(WORKER)

    aws = {name: value for name, value in found.items() if name.startswith("AWS_")}
    assert aws == {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "se/cret",
        "AWS_DEFAULT_REGION": "us-east-2",
        "AWS_ENDPOINT_URL_S3": "http://own",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
        "AWS_CA_BUNDLE": "/ca.pem",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    assert "AUTOML_S3_CONN_ID" not in found


def test_without_an_endpoint_of_its_own_a_connection_asks_aws(connection: Any) -> None:
    connection(**KEYS, extra={"aws_session_token": "own-token"})

    found = child(WORKER)

    assert found["AWS_SESSION_TOKEN"].startswith("own-token")
    assert not [name for name in found if name.startswith("AWS_ENDPOINT_URL")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "login: it is empty.*profile_name, role_arn.*worker_identity"),
        ({"login": "key"}, "one of them is missing"),
        ({"password": "secret"}, "one of them is missing"),
        ({**KEYS, "extra": {"profile_name": "x"}}, "login and profile_name contradict"),
        ({**KEYS, "extra": {"worker_identity": True}}, "login and worker_identity contradict"),
        ({**KEYS, "extra": {"config_kwargs": {"signature_version": "s3"}}}, "extra.config_kwargs"),
        ({**KEYS, "extra": {"session_kwargs": {"a": 1}}}, "extra.session_kwargs"),
        ({**KEYS, "extra": {"verify": False}}, "extra.verify: false is refused"),
        ({**KEYS, "extra": {"verify": "/no/such.pem"}}, "'/no/such.pem' is no file"),
        ({**KEYS, "extra": {"endpoint_url": "http://a", "service_config":
            {"s3": {"endpoint_url": "http://b"}}}}, "http://b contradicts .*http://a"),
        ({**KEYS, "extra": {"service_config": {"s3": {"verify": False}}}}, r"s3\.verify"),
        ({**KEYS, "extra": {"service_config": ["s3"]}}, "not an object of objects"),
        ({"extra": {"role_arn": "r", "assume_role_method": "assume_role_with_saml"}}, "saml"),
        ({"extra": {"role_arn": "r", "assume_role_kwargs": {"Policy": "x"}}}, "kwargs.Policy"),
        ({"conn_type": "postgres", **KEYS}, "it is 'postgres', not 'aws'"),
        ({"extra": {"worker_identity": True, "endpoint_url": "http://own"}},
         "http://own contradicts the worker's, which is http://worker-s3"),
    ],
)  # fmt: skip
def test_what_would_be_ignored_or_contradicts_itself_is_refused(
    connection: Any, content: dict[str, Any], message: str
) -> None:
    connection(**content)

    with pytest.raises(ConfigError, match=f"(?s){message}") as caught:
        child(WORKER)
    assert "se/cret" not in str(caught.value)


def test_a_connection_that_is_not_there_or_has_no_json_is_named(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="There is no connection store"):
        child(WORKER)

    monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps({"conn_type": "aws", "extra": "{se/cret"}))
    with pytest.raises(ConfigError, match="extra of connection store") as caught:
        child(WORKER)
    assert "se/cret" not in str(caught.value)


@pytest.mark.parametrize("verify", [True, "true"])
def test_certificates_are_checked_and_an_authority_can_be_named(
    connection: Any, tmp_path: Path, verify: object
) -> None:
    connection(**KEYS, extra={"verify": verify})
    assert child(WORKER)["AWS_CA_BUNDLE"] == "/ca.pem"

    authority = tmp_path / "own.pem"
    authority.touch()
    connection(**KEYS, extra={"verify": str(authority)})
    assert child(WORKER)["AWS_CA_BUNDLE"] == str(authority)


def test_the_worker_lends_its_identity_where_the_connection_says_so(connection: Any) -> None:
    connection(extra={"worker_identity": True, "region_name": "us-east-2"})

    found = child(WORKER)

    assert found["AWS_SESSION_TOKEN"].startswith("worker-token")
    assert found["AWS_ENDPOINT_URL_S3"] == "http://worker-s3"
    assert found["AWS_DEFAULT_REGION"] == "us-east-2"


def credentials(environment: Mapping[str, str]) -> Any:
    """Return what botocore, in this process, finds with nothing but the given AWS variables."""
    import botocore.session

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in environment.items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        found = botocore.session.Session().get_credentials()
        assert found is not None
        return found.get_frozen_credentials()


def test_a_profile_of_the_worker_can_be_named(connection: Any, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("[lab]\naws_access_key_id = lab-key\naws_secret_access_key = lab-secret\n")
    connection(extra={"profile_name": "lab"})

    found = credentials(child({**WORKER, "AWS_SHARED_CREDENTIALS_FILE": str(file)}))

    assert (found.access_key, found.secret_key, found.token) == ("lab-key", "lab-secret", None)


class FakeSts(BaseHTTPRequestHandler):
    """Gives a role to whoever asks, and remembers who did."""

    asked: list[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        type(self).asked.append(self.headers.get("Authorization", "") + " " + body)
        answer = (
            b"<AssumeRoleResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'>"
            b"<AssumeRoleResult><Credentials><AccessKeyId>role-key</AccessKeyId>"
            b"<SecretAccessKey>role-secret</SecretAccessKey><SessionToken>role-token</SessionToken>"
            b"<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult>"
            b"</AssumeRoleResponse>"
        )
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def sts() -> Iterator[tuple[str, list[str]]]:
    FakeSts.asked = []
    with HTTPServer(("127.0.0.1", 0), FakeSts) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", FakeSts.asked
        server.shutdown()
        thread.join()


WITHOUT_KEYS = {k: v for k, v in WORKER.items() if "KEY" not in k and "TOKEN" not in k}


@pytest.mark.parametrize(
    ("content", "worker", "asks"),
    [
        (KEYS, WORKER, "key"),
        ({}, {k: v for k, v in WORKER.items() if k != "AWS_PROFILE"}, "worker-key"),
        ({}, WITHOUT_KEYS, "profile-key"),
        ({"profile": "lab"}, WORKER, "lab-key"),
    ],
)
def test_boto3_takes_a_role_on_with_the_right_source(
    connection: Any, sts: tuple[str, list[str]], tmp_path: Path,
    content: dict[str, str], worker: dict[str, str], asks: str,
) -> None:  # fmt: skip
    url, asked = sts
    config = tmp_path / "config"
    config.write_text(
        "[profile worker]\naws_access_key_id = profile-key\naws_secret_access_key = s\n"
        "[profile lab]\naws_access_key_id = lab-key\naws_secret_access_key = s\n"
    )
    extra = {
        "role_arn": "arn:aws:iam::2:role/automl",
        "assume_role_kwargs": {"RoleSessionName": "night", "DurationSeconds": 900},
        "external_id": "ours",
        "region_name": "us-east-1",
        "service_config": {"sts": {"endpoint_url": url}},
    }
    if "profile" in content:
        extra["profile_name"] = content["profile"]
    connection(**{k: v for k, v in content.items() if k != "profile"}, extra=extra)

    worker = {k: v for k, v in worker.items() if k != "AWS_CA_BUNDLE"}
    environment = child({**worker, "AWS_CONFIG_FILE": str(config)})
    found = credentials(environment)

    assert (found.access_key, found.secret_key, found.token) == (
        "role-key", "role-secret", "role-token",
    )  # fmt: skip
    assert len(asked) == 1
    assert f"Credential={asks}/" in asked[0]
    for part in ("RoleSessionName=night", "ExternalId=ours", "DurationSeconds=900"):
        assert part in asked[0]
    assert "se/cret" not in str(environment)


@pytest.mark.parametrize(
    ("worker", "expected"),
    [
        (HOME, {"credential_source": "Ec2InstanceMetadata"}),
        (
            {**HOME, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/x"},
            {"credential_source": "EcsContainer"},
        ),
    ],
)
def test_a_role_may_come_from_the_machine(
    connection: Any, worker: dict[str, str], expected: dict[str, str]
) -> None:
    connection(extra={"role_arn": "arn:aws:iam::2:role/automl"})

    environment = child({**worker, "AUTOML_S3_CONN_ID": "store"})
    with pytest.MonkeyPatch.context() as patch:
        import botocore.session

        patch.setenv("AWS_CONFIG_FILE", environment["AWS_CONFIG_FILE"])
        profile = botocore.session.Session(profile="automl-connection").get_scoped_config()

    assert profile == {"role_arn": "arn:aws:iam::2:role/automl", **expected}


def test_a_token_of_the_cluster_is_the_source_of_a_role(connection: Any) -> None:
    connection(extra={"role_arn": "arn:aws:iam::2:role/automl"})
    worker = {
        **HOME, "AUTOML_S3_CONN_ID": "store", "AWS_WEB_IDENTITY_TOKEN_FILE": "/token",
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/worker",
    }  # fmt: skip

    found = child(worker)

    with pytest.MonkeyPatch.context() as patch:
        import botocore.session

        patch.setenv("AWS_CONFIG_FILE", found["AWS_CONFIG_FILE"])
        profiles = botocore.session.Session().full_config["profiles"]
    assert profiles["automl-connection"]["source_profile"] == "automl-connection-source"
    assert profiles["automl-connection-source"] == {
        "role_arn": "arn:aws:iam::1:role/worker", "web_identity_token_file": "/token",
    }  # fmt: skip
    assert "AWS_WEB_IDENTITY_TOKEN_FILE" not in found


def test_the_file_of_a_role_is_private_and_on_no_disk(connection: Any) -> None:
    connection(**KEYS, extra={"role_arn": "arn:aws:iam::2:role/automl"})

    path = Path(child(WORKER)["AWS_CONFIG_FILE"])

    assert "se/cret" in path.read_text()
    assert path.resolve().name.startswith("memfd:") or "memfd:" in str(path.readlink())
    assert stat.S_ISREG(path.stat().st_mode)


@pytest.mark.parametrize(
    ("content", "address"),
    [
        (
            {"conn_type": "postgres", "host": "db", "port": 5433, "login": "an:na",
             "password": "p@ss/w", "schema": "automl", "extra": {"sslmode": "verify-full"}},
            "postgresql://an%3Ana:p%40ss%2Fw@db:5433/automl?sslmode=verify-full",
        ),
        ({"conn_type": "postgres", "host": "::1", "schema": "a"}, "postgresql://[::1]/a"),
        (
            {"conn_type": "postgres", "host": "/run/pg", "schema": "a"},
            "postgresql:///a?host=%2Frun%2Fpg",
        ),
        ({"conn_type": "sqlite", "host": "/var/log.db"}, "sqlite:////var/log.db"),
    ],
)  # fmt: skip
def test_a_connection_can_name_the_study_log(
    connection: Any, content: dict[str, Any], address: str
) -> None:
    from automl.storage.sql.url import parse_url

    connection("log", **content)

    found = child({**HOME, "AUTOML_STUDY_LOG_CONN_ID": "log"})

    assert found["AUTOML_STUDY_LOG"] == address
    assert "AUTOML_STUDY_LOG_CONN_ID" not in found
    assert Settings.from_environment(found).study_log == address
    parse_url(address)


def test_a_study_log_by_uri_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LOG", "postgresql://anna:p%40ss@db:5432/automl")
    given = {**HOME, "AUTOML_STUDY_LOG_CONN_ID": "log"}
    assert child(given)["AUTOML_STUDY_LOG"] == "postgresql://anna:p%40ss@db:5432/automl"

    monkeypatch.setenv("AIRFLOW_CONN_LOG", "sqlite:////var/lib/log.db")
    assert child(given)["AUTOML_STUDY_LOG"] == "sqlite:////var/lib/log.db"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"conn_type": "mysql", "password": "se/cret"}, "of type mysql"),
        ({"conn_type": "postgres", "extra": {"iam": "se/cret"}}, "has iam"),
    ],
)
def test_other_connections_are_no_study_log(
    connection: Any, content: dict[str, Any], message: str
) -> None:
    connection("log", **content)

    with pytest.raises(ConfigError, match=message) as caught:
        child({**HOME, "AUTOML_STUDY_LOG_CONN_ID": "log"})
    assert "se/cret" not in str(caught.value)


def test_two_names_of_the_study_log_are_refused() -> None:
    given = {"AUTOML_STUDY_LOG": "sqlite:////a", "AUTOML_STUDY_LOG_CONN_ID": "log"}

    with pytest.raises(ConfigError, match="AUTOML_STUDY_LOG and AUTOML_STUDY_LOG_CONN_ID are set"):
        child({**HOME, **given})


@pytest.mark.parametrize("variable", ["AUTOML_S3_CONN_ID", "AUTOML_STUDY_LOG_CONN_ID"])
def test_an_airflow_that_does_not_answer_is_waited_for(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse

    def away(conn_id: str) -> Any:
        raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR))

    monkeypatch.setattr(Connection, "get", away)
    with pytest.raises(StorageError, match="Connection store cannot be looked up") as caught:
        child({**HOME, variable: "store"})
    assert caught.value.retryable
