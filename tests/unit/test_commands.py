"""Commands that start, watch and stop an Airflow of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from automl_airflow import commands
from automl_airflow.__main__ import main
from automl_airflow.supervisor import MARK, Component, Supervisor, end_marked

_SERVER = """
import sys
from pathlib import Path
from automl_airflow import commands
from automl_airflow.__main__ import main
from tests.unit.test_commands import Small
commands.SHAPES["local"] = commands.Shape("unused", "up", Small)
sys.exit(main(["serve", "--folder", sys.argv[1]]))
"""
_WITHIN_S = 60.0


class Small:
    """One component that does nothing."""

    def __init__(self, folder: Path, dags: Path, supervisor: Supervisor) -> None:
        code = "import time; time.sleep(600)"
        log = folder / "idle.log"
        self._idle = Component("idle", [sys.executable, "-c", code], log, folder, dict(os.environ))
        self._supervisor = supervisor
        self.stop = supervisor.stop
        self.address = "it is here"

    def start(self) -> None:
        self._supervisor.start([self._idle])


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A folder from which a process serves."""
    process = subprocess.Popen([sys.executable, "-c", _SERVER, str(tmp_path)])
    try:
        wait_for(tmp_path / "address.txt")
        yield tmp_path, process
    finally:
        process.kill()
        process.wait()
        end_marked((tmp_path / "mark").read_text().strip())


def wait_for(path: Path) -> None:
    limit_s = time.monotonic() + _WITHIN_S
    while not path.exists():
        assert time.monotonic() < limit_s
        time.sleep(0.05)


def marked(folder: Path) -> list[str]:
    entry = f"{MARK}={(folder / 'mark').read_text().strip()}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if entry in (process / "environ").read_bytes().split(b"\0"):
                found.append(process.name)
        except OSError:
            continue
    return found


def test_status_names_every_component_and_down_ends_them(
    serving: tuple[Path, subprocess.Popen[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, process = serving
    assert main(["status", "--folder", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "it is here" in said
    assert "idle" in said
    assert "healthy" in said
    assert main(["up", "--folder", str(folder)]) == 0  # a second one finds it
    assert capsys.readouterr().out == said
    assert {path.stat().st_mode & 0o777 for path in folder.glob("[asm]*")} == {0o600}

    (pid,) = marked(folder)
    os.kill(int(pid), signal.SIGKILL)
    limit_s = time.monotonic() + _WITHIN_S
    while "started again 1 times" not in capsys.readouterr().out:
        assert time.monotonic() < limit_s
        code = main(["status", "--folder", str(folder)])
        time.sleep(0.1)
    assert code == 0 or marked(folder)

    assert main(["down", "--folder", str(folder)]) == 0
    assert process.wait(_WITHIN_S) == 130
    assert marked(folder) == []
    assert sorted(path.name for path in folder.iterdir()) == ["idle.log", "lock", "mark"]


def test_down_ends_what_a_killed_supervisor_has_left(
    serving: tuple[Path, subprocess.Popen[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, process = serving
    process.kill()
    process.wait()
    assert len(marked(folder)) == 1
    assert main(["status", "--folder", str(folder)]) == 1
    assert main(["down", "--folder", str(folder)]) == 0
    assert "stopped: 1 processes, whose supervisor had been killed" in capsys.readouterr().out
    assert marked(folder) == []
    assert main(["down", "--folder", str(folder)]) == 1


def test_one_folder_serves_once(serving: tuple[Path, subprocess.Popen[bytes]]) -> None:
    folder, _ = serving
    second = subprocess.run(
        [sys.executable, "-c", _SERVER, str(folder)], capture_output=True, text=True, check=False
    )
    assert second.returncode == 1
    assert "Another process serves from" in second.stdout
    assert commands.running(folder) is not None
    assert len(marked(folder)) == 1


def test_the_status_of_nothing_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--shape", "stack", "--folder", str(tmp_path)]) == 1
    assert f"Nothing serves from {tmp_path}. Hint: start it with `make stack`" in (
        capsys.readouterr().out
    )
