"""Real servers for tests, each on free ports of 127.0.0.1 and in a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ACCESS_KEY, SECRET_KEY = "test-admin", "test-admin-secret-value"
BUCKET = "automl-test"
_START_S, _STOP_S = 30.0, 5.0


class SeaweedServer:
    """An S3 server with conditional writes: SeaweedFS with one admin identity and one bucket.

    Args:
        folder: an empty folder for its data, configuration and log.
    """

    bucket = BUCKET

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which boto3, in any process, finds the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": str(self._folder / "no-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self._folder / "no-credentials"),
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        """Start the server and wait until a bucket exists and an object can be written."""
        identity = {
            "name": "admin",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (self._folder / "data").mkdir(exist_ok=True)
        (self._folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self._folder,
                env={**os.environ, "HOME": str(self._folder), "GOMEMLIMIT": "300MiB"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server, by force if it takes long."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _command(self) -> list[str]:
        s3, master, volume, filer, admin = _free_ports(5)
        self._port = s3
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

    def _wait(self) -> None:
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5),
        )
        limit_s = time.monotonic() + _START_S
        while True:
            try:
                if BUCKET not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
                    client.create_bucket(Bucket=BUCKET)
                client.put_object(Bucket=BUCKET, Key=f"ready/{uuid.uuid4().hex}", Body=b"ready")
            except (BotoCoreError, ClientError) as error:
                assert self._process is not None
                if self._process.poll() is not None or time.monotonic() > limit_s:
                    text = (self._folder / "server.log").read_text(errors="replace")
                    raise RuntimeError(f"the S3 server does not start: {text[-2000:]}") from error
                time.sleep(0.1)
            else:
                client.close()
                return


def _weed() -> str:
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise RuntimeError("weed is missing: install the package with its dev requirements")
    return found


def _free_ports(count: int) -> list[int]:
    """Return free ports; each leaves the port 10,000 above free too, which the server also takes.

    Below the ports that systems give to outgoing connections.
    """
    found: list[int] = []
    for offset in range(20_000):
        port = 11_000 + (os.getpid() * 37 + offset) % 10_000
        if all(_is_free(candidate) for candidate in (port, port + 10_000)):
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
