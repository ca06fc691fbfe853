"""The supervisor: what ends is named and started again, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from automl_airflow.supervisor import (
    Component,
    ComponentError,
    State,
    Supervisor,
    end_marked,
)

_WITHIN_S = 20.0


def component(folder: Path, name: str, code: str, healthy: Callable[[], bool]) -> Component:
    log = folder / f"{name}.log"
    return Component(name, [sys.executable, "-c", code], log, folder, dict(os.environ), healthy)


def until(look: Callable[[], object]) -> None:
    limit_s = time.monotonic() + _WITHIN_S
    while not look():
        assert time.monotonic() < limit_s
        time.sleep(0.02)


def tended(running: Supervisor, look: Callable[[], bool]) -> bool:
    running.tend()
    return look()


def lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@contextmanager
def supervisor(said: list[str]) -> Iterator[Supervisor]:
    running = Supervisor(said.append)
    try:
        yield running
    finally:
        running.stop()


SERVES = "import pathlib, time; pathlib.Path('up').touch(); time.sleep(600)"


def test_what_ends_is_named_and_started_again(tmp_path: Path) -> None:
    said: list[str] = []
    with supervisor(said) as running:
        up = tmp_path / "up"
        running.start([component(tmp_path, "server", SERVES, up.exists)])
        before = running.reports()[0]
        os.kill(before.pid, signal.SIGKILL)
        until(running.ended)
        up.unlink()
        running.tend()
        ended = running.reports()[0]
        until(lambda: tended(running, up.exists))
        running.look()
        after = running.reports()[0]

    log = tmp_path / "server.log"
    assert (before.state, ended.state, after.state) == (State.HEALTHY, State.ENDED, State.HEALTHY)
    assert (before.restarts, ended.exit_code, after.restarts) == (0, -9, 1)
    assert said == [
        f"server has ended with exit code -9: see {log}; it is started again in 1 s",
        f"server is started again, as process {after.pid}",
    ]
    assert not lives(after.pid)


def test_each_end_in_a_row_is_answered_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("automl_airflow.supervisor._FIRST_PAUSE_S", 0.0625)
    said: list[str] = []
    with supervisor(said) as running:
        running._launch(component(tmp_path, "server", "exit(3)", lambda: False))
        part = running._parts["server"]
        part.pause_s = 0.0625
        until(lambda: tended(running, lambda: part.restarts >= 3))
        assert part.pause_s >= 0.5
        part.started_s -= 3600.0  # it has run for an hour
        until(lambda: tended(running, lambda: part.again_s is not None))
        assert part.pause_s == 0.125


def test_an_end_takes_the_rest_of_the_process_group_along(tmp_path: Path) -> None:
    code = (
        "import pathlib, subprocess, sys, time\n"
        f"child = subprocess.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(600)'])\n"
        "pathlib.Path('part').write_text(str(child.pid))\n"
        "pathlib.Path('part').rename('child')\n"
        "time.sleep(600)"
    )
    with supervisor([]) as running:
        running.start([component(tmp_path, "server", code, (tmp_path / "child").exists)])
        child = int((tmp_path / "child").read_text())
        assert lives(child)
        os.kill(running.reports()[0].pid, signal.SIGKILL)
        until(running.ended)
        running.tend()
        until(lambda: not lives(child))


def test_what_starts_last_ends_first(tmp_path: Path) -> None:
    def code(name: str) -> str:
        return (
            "import pathlib, signal, sys, time\n"
            "def end(*_):\n"
            f"    open('order', 'a').write('{name} ')\n"
            "    sys.exit()\n"
            "signal.signal(signal.SIGTERM, end)\n"
            f"pathlib.Path('{name}').touch()\n"
            "time.sleep(600)"
        )

    with supervisor([]) as running:
        for name in ("server", "worker"):
            running.start([component(tmp_path, name, code(name), (tmp_path / name).exists)])
    assert (tmp_path / "order").read_text() == "worker server "
    assert running.reports() == []


def test_what_has_left_its_group_is_found_by_its_mark(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    pathlib.Path('part').write_text(str(os.getpid()))\n"
        "    pathlib.Path('part').rename('child')\n"
        "time.sleep(600)"
    )
    with supervisor([]) as running:
        running.start([component(tmp_path, "server", code, (tmp_path / "child").exists)])
        child = int((tmp_path / "child").read_text())
    until(lambda: not lives(child))
    assert end_marked(running.mark) == 0


def test_a_component_that_does_not_start_is_named_with_its_last_words(tmp_path: Path) -> None:
    code = "print('the port is taken'); exit(4)"
    with supervisor([]) as running:
        broken = component(tmp_path, "server", code, lambda: False)
        with pytest.raises(ComponentError, match="server did not start") as caught:
            running.start([broken])
        assert "the port is taken" in str(caught.value)

        silent = component(tmp_path, "silent", "import time; time.sleep(600)", lambda: False)
        with pytest.raises(ComponentError, match="silent did not start"):
            running.start([silent], within_s=0.2)
        with pytest.raises(ComponentError, match="`server` failed"):
            running.run(broken)


def test_an_end_that_is_broken_off_is_made_by_force(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "time.sleep(600)"
    )
    running = Supervisor()
    for name in ("server", "worker"):
        deaf = component(tmp_path, name, code, (tmp_path / name).exists)
        running.start([replace(deaf, command=[*deaf.command, name])])
    pids = [report.pid for report in running.reports()]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            running.stop()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert {lives(pid) for pid in pids} == {False}
    assert running.reports() == []


def test_what_cannot_be_started_again_is_tried_later(tmp_path: Path) -> None:
    said: list[str] = []
    folder = tmp_path / "folder"
    folder.mkdir()
    with supervisor(said) as running:
        idle = component(folder, "server", "import time; time.sleep(600)", lambda: True)
        running.start([replace(idle, log=tmp_path / "log")])
        folder.rename(tmp_path / "away")
        part = running._parts["server"]
        part.pause_s = 0.01
        os.kill(part.process.pid, signal.SIGKILL)
        until(lambda: tended(running, lambda: "cannot be started" in said[-1] if said else False))
        (tmp_path / "away").rename(folder)
        until(lambda: tended(running, lambda: part.restarts == 1))
    assert any("No such file or directory" in line for line in said)


def test_what_cannot_be_asked_is_not_well(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    answers: list[Exception] = []

    def healthy() -> bool:
        if answers:
            raise answers[0]
        return True

    with supervisor([]) as running:
        idle = component(tmp_path, "server", "import time; time.sleep(600)", healthy)
        running.start([idle])
        answers.append(KeyError("an answer of another kind"))
        for _ in range(2):
            running.look()
        assert running.reports()[0].state is State.UNHEALTHY
        answers.clear()
        running.look()
        assert running.reports()[0].state is State.HEALTHY
    assert "server cannot be asked how it is: KeyError" in caplog.text


def test_one_miss_is_no_illness(tmp_path: Path) -> None:
    said: list[str] = []
    well = [True]
    with supervisor(said) as running:
        idle = component(tmp_path, "server", "import time; time.sleep(600)", lambda: well[0])
        running.start([idle])
        well[0] = False
        states = []
        for _ in range(2):
            running.look()
            states.append(running.reports()[0].state)
    assert states == [State.HEALTHY, State.UNHEALTHY]
    assert said == [f"server is not healthy: see {tmp_path / 'server.log'}"]
