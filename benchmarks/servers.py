"""Servers for benchmarks and tests: those of `make stack`, with logins that everybody knows."""

from __future__ import annotations

from pathlib import Path

from automl_airflow.servers.postgres import POSTGRES_USER, PostgresServer
from automl_airflow.servers.seaweed import Identity, S3Server

__all__ = ["POSTGRES_PASSWORD", "POSTGRES_USER", "PostgresServer", "SeaweedServer"]

ACCESS_KEY, SECRET_KEY = "test-admin", "test-admin-secret-value"
READER_ACCESS_KEY, READER_SECRET_KEY = "test-reader", "test-reader-secret-value"
BUCKET = "automl-test"
POSTGRES_PASSWORD = "test:p@ss/word"  # noqa: S105 - with all that needs quoting in an address


class SeaweedServer(S3Server):
    """An S3 server with conditional writes: SeaweedFS with one bucket, an admin and a reader.

    Args:
        folder: an empty folder for its data, configuration and log.
    """

    bucket = BUCKET

    def __init__(self, folder: Path) -> None:
        admin = Identity("admin", ACCESS_KEY, SECRET_KEY)
        rights = [f"Read:{BUCKET}", f"List:{BUCKET}"]
        reader = Identity("reader", READER_ACCESS_KEY, READER_SECRET_KEY, rights)
        super().__init__(folder, [admin, reader], [BUCKET])

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
