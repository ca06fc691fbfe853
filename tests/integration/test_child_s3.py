"""A step's process reaches S3 by a connection of Airflow, whatever identity its worker has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from benchmarks.servers import ACCESS_KEY, SECRET_KEY, SeaweedServer

os.environ.setdefault("AIRFLOW_HOME", "/tmp/automl-test-airflow")  # noqa: S108
pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")

WRITE = """
from automl.domain.settings import Settings
from automl.storage.open import open_home
home = open_home(Settings.from_environment())
home.store.put("studies/x/trace.json", b"here")
print(home.store.get("studies/x/trace.json").data.decode())
"""


def write(worker: dict[str, str]) -> subprocess.CompletedProcess[str]:
    from automl_airflow.child import child_environment

    return subprocess.run(
        [sys.executable, "-c", WRITE],
        env=child_environment(worker), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("identity", ["keys", "profile", "worker"])
def test_a_connection_is_all_that_a_step_asks_by(
    identity: str, s3_server: SeaweedServer, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra: dict[str, Any] = {"endpoint_url": s3_server.endpoint, "region_name": "us-east-1"}
    connection: dict[str, Any] = {"conn_type": "aws", "extra": extra}
    worker = {
        **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
        "AUTOML_HOME": f"s3://{s3_server.bucket}/child-{identity}",
        "AUTOML_S3_CONN_ID": "store",
        "AWS_ACCESS_KEY_ID": "another",
        "AWS_SECRET_ACCESS_KEY": "identity",
        "AWS_SESSION_TOKEN": "stale",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }
    if identity == "keys":
        connection |= {"login": ACCESS_KEY, "password": SECRET_KEY}
    elif identity == "profile":
        (tmp_path / "credentials").write_text(
            f"[lab]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
        )
        extra["profile_name"] = "lab"
    else:
        extra["worker_identity"] = True
        worker |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        del worker["AWS_SESSION_TOKEN"], worker["AWS_ENDPOINT_URL_S3"]
    monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps(connection))

    done = write(worker)

    assert (done.returncode, done.stdout) == (0, "here\n"), done.stderr
