"""Commands that start, watch and stop an Airflow of this machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from automl_airflow import commands
from automl_airflow.__main__ import main
from automl_airflow.supervisor import MARK, Component, Supervisor, end_marked

from tests.unit.test_supervisor import lives

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
UP = "import os, pathlib, signal, sys, time\npathlib.Path('up').touch()"


class Small:
    """One component: `idle.py` in the folder, or one that does nothing. It is well from then on."""

    def __init__(self, folder: Path, dags: Path, supervisor: Supervisor) -> None:
        code = folder / "idle.py"
        if not code.exists():
            code.write_text(f"{UP}\ntime.sleep(600)")
        command = [sys.executable, str(code)]
        log, up = folder / "idle.log", folder / "up"
        env = dict(os.environ)
        self._idle = Component("idle", command, log, folder, env, up.exists, stop_s=2.0)
        self._supervisor = supervisor
        self.stop = supervisor.stop
        self.address = "it is here"

    def start(self) -> None:
        self._supervisor.start([self._idle])


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Let children hear of interrupts: what a shell starts in the background ignores them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def served(folder: Path, code: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process that serves from a folder, with a component that runs some code."""
    if code is not None:
        (folder / "idle.py").write_text(code)
    process = subprocess.Popen([sys.executable, "-c", _SERVER, str(folder)])
    try:
        wait_for(folder / "mark")
        yield process
    finally:
        process.kill()
        process.wait()
        end_marked((folder / "mark").read_text().strip())


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A folder from which a process serves."""
    with served(tmp_path) as process:
        wait_for(tmp_path / "address.txt")
        yield tmp_path, process


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
    assert {path.name for path in folder.iterdir()} == {"idle.py", "idle.log", "lock", "mark", "up"}


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


NAMED = f"""
import os, pathlib, setproctitle, subprocess, sys, time
bare = [sys.executable, "-c", "import time; time.sleep(600)"]
if os.fork() == 0:
    os.setsid()
child = subprocess.Popen(bare, env={{}}, start_new_session=True)
setproctitle.setproctitle("a name of its own")
with open("pids", "a") as file:
    file.write(f"{{os.getpid()}} {{child.pid}} ")
{UP}
time.sleep(600)
"""


def test_what_names_itself_and_has_its_own_session_ends_with_a_killed_supervisor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(tmp_path, NAMED) as process:
        wait_for(tmp_path / "address.txt")
        process.kill()
        process.wait()
        pids = {int(pid) for pid in (tmp_path / "pids").read_text().split()}
        assert {lives(pid) for pid in pids} == {True}
        assert main(["down", "--folder", str(tmp_path)]) == 0
        assert {lives(pid) for pid in pids} == {False}
    assert "stopped: 4 processes" in capsys.readouterr().out


SLOW_TO_END = f"""
{UP}
def end(*_):
    pathlib.Path("asked").touch()
    time.sleep(0.5)
    pathlib.Path("ended").touch()
    sys.exit()
signal.signal(signal.SIGTERM, end)
time.sleep(600)
"""


def test_more_signals_do_not_break_off_the_end(tmp_path: Path) -> None:
    with served(tmp_path, SLOW_TO_END) as process:
        wait_for(tmp_path / "address.txt")
        process.terminate()
        wait_for(tmp_path / "asked")
        for more in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            process.send_signal(more)
        assert process.wait(_WITHIN_S) == 130
        assert (tmp_path / "ended").exists()
        assert marked(tmp_path) == []


DEAF = f"""
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
{UP}
time.sleep(600)
"""


def test_what_ignores_a_polite_signal_is_ended_by_force(tmp_path: Path) -> None:
    with served(tmp_path, DEAF) as process:
        wait_for(tmp_path / "address.txt")
        assert main(["down", "--folder", str(tmp_path)]) == 0
        assert process.wait(_WITHIN_S) == 130
        assert marked(tmp_path) == []


def test_a_supervisor_that_hangs_is_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_STOP_WITHIN_S", 0.5)
    with served(tmp_path) as process:
        wait_for(tmp_path / "address.txt")
        process.send_signal(signal.SIGSTOP)
        assert main(["down", "--folder", str(tmp_path)]) == 0
        assert process.wait(_WITHIN_S) == -signal.SIGKILL
        assert marked(tmp_path) == []
    said = capsys.readouterr().out
    assert f"process {process.pid} does not stop; it is killed" in said
    assert "stopped: 1 processes" in said


def test_an_interrupt_while_it_starts_ends_what_has_started(tmp_path: Path) -> None:
    with served(
        tmp_path, "import pathlib, time; pathlib.Path('ill').touch(); time.sleep(600)"
    ) as it:
        wait_for(tmp_path / "ill")
        it.send_signal(signal.SIGINT)
        assert it.wait(_WITHIN_S) == 130
        assert marked(tmp_path) == []


@contextlib.contextmanager
def ended(folder: Path) -> Iterator[None]:
    """End what serves from a folder at the end of the block, if anything does."""
    try:
        yield
    finally:
        if commands.running(folder):
            commands.down(folder)


def test_an_interrupt_of_up_ends_what_it_has_started(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "automl_airflow", "up", "--folder", str(tmp_path)]
    with (
        ended(tmp_path),
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
    ):
        wait_for(tmp_path / "db-migrate.log")
        assert marked(tmp_path)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=_WITHIN_S)
    assert (process.returncode, said) == (130, "what has started is being stopped\ninterrupted\n")
    assert marked(tmp_path) == []
    assert commands.running(tmp_path) is None


def test_a_look_at_the_lock_keeps_nobody_from_serving(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as `status` does
        threading.Timer(0.5, fcntl.flock, (file, fcntl.LOCK_UN)).start()
        with commands._held(tmp_path):
            assert commands.running(tmp_path) == os.getpid()


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
