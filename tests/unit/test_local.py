"""The local Airflow: its parts, and who may read its files."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from automl_airflow.local import TRIGGERER, ApiServers, LocalAirflow
from automl_airflow.private import kept_secret, private_folder, write_private


def test_a_private_file_is_never_readable_by_others(tmp_path: Path) -> None:
    path, modes = tmp_path / "address.txt", set()
    path.write_text("left by an older version")
    path.chmod(0o644)
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            for file in tmp_path.iterdir():
                with contextlib.suppress(OSError):
                    if "secret" in file.read_text():
                        modes.add(file.stat().st_mode & 0o777)

    thread = threading.Thread(target=look)
    thread.start()
    previous = os.umask(0)
    try:
        for _ in range(200):
            write_private(path, "secret")
    finally:
        os.umask(previous)
        stop.set()
        thread.join()

    assert path.read_text() == "secret"
    assert path.stat().st_mode & 0o777 == 0o600
    assert modes <= {0o600}
    assert [file.name for file in tmp_path.iterdir()] == ["address.txt"]


def test_the_api_server_can_be_split(tmp_path: Path) -> None:
    whole = LocalAirflow(tmp_path, tmp_path, {}, more=[TRIGGERER])
    split = LocalAirflow(tmp_path, tmp_path, {}, api=ApiServers.SPLIT)

    assert whole.components == (
        ("api-server",), ("scheduler",), ("dag-processor",), ("triggerer",),
    )  # fmt: skip
    assert split.components == (
        ("api-server", "--apps", "core", "--port", str(split.port)),
        ("api-server", "--apps", "execution", "--port", str(split.execution_port)),
        ("scheduler",),
        ("dag-processor",),
    )
    assert (whole.port == whole.execution_port, split.port == split.execution_port) == (True, False)
    logs = [split.log_file(" ".join(command)).name for command in split.components]
    assert logs == [
        "api-server-core.log", "api-server-execution.log", "scheduler.log", "dag-processor.log",
    ]  # fmt: skip


def test_a_secret_is_made_up_once(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "secrets")
    secret = kept_secret(folder / "one")

    assert kept_secret(folder / "one") == secret != kept_secret(folder / "two")
    assert len(secret) >= 32
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_setting_that_a_command_prints_stands_in_no_environment(tmp_path: Path) -> None:
    setting = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
    airflow = LocalAirflow(tmp_path, tmp_path, {f"{setting}_CMD": "cat secret"})

    assert setting not in airflow.env
    assert airflow.env[f"{setting}_CMD"] == "cat secret"
