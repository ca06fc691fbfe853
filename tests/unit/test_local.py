"""The local Airflow: its parts, what is said of those that end, and who may read its files."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from automl_airflow import demo
from automl_airflow.local import TRIGGERER, ApiServers, LocalAirflow, write_private


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


class Parts:
    """Parts of an Airflow, of which one dies after a moment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._part = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(0.5); exit(3)"]
        )

    def ended(self) -> dict[str, int]:
        code = self._part.poll()
        return {} if code is None else {"scheduler": code}

    def log_file(self, name: str) -> Path:
        return self._folder / f"{name}.log"


def test_a_part_that_dies_is_named_in_the_log_and_the_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_WATCH_S", 0.05)
    report = tmp_path / "ended.txt"
    parts: Any = Parts(tmp_path)

    def interrupt(_: float, sleep: Any = time.sleep) -> None:
        if report.exists():
            raise KeyboardInterrupt
        sleep(0.05)

    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        demo._watch(parts, report)

    line = f"Airflow's scheduler has ended with exit code 3: see {tmp_path}/scheduler.log\n"
    assert (capsys.readouterr().out, report.read_text()) == (line, line)

    (tmp_path / "address.txt").write_text("Airflow is at http://x")
    monkeypatch.setattr(demo, "_running", lambda folder: 1)
    assert demo.main(["status", "--folder", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "Airflow is at http://x" in said
    assert "error: Airflow's scheduler has ended" in said


def test_the_status_of_nothing_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.main(["status", "--folder", str(tmp_path)]) == 1
    assert "Nothing serves from" in capsys.readouterr().out
