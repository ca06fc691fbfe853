"""Servers of the stack, started alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from automl_airflow.ports import Ports
from automl_airflow.servers.postgres import PostgresServer
from automl_airflow.servers.valkey import ValkeyServer
from automl_airflow.stack import StackFolders
from automl_airflow.supervisor import ComponentError

PASSWORD = "a-password-of-a-test"  # noqa: S105


def ask(server: ValkeyServer, *lines: str) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), 5) as connection:
        connection.sendall("".join(f"{line}\r\n" for line in (*lines, "QUIT")).encode())
        answer = b""
        while part := connection.recv(4096):
            answer += part
        return answer


def test_valkey_wants_its_password_and_keeps_what_it_was_given(tmp_path: Path) -> None:
    with ValkeyServer(tmp_path, PASSWORD) as server:
        assert b"NOAUTH" in ask(server, "GET task")
        ask(server, f"AUTH {PASSWORD}", "SET task waits")
        server.stop()
        server.start()
        assert b"waits" in ask(server, f"AUTH {PASSWORD}", "GET task")
        assert (tmp_path / "valkey.conf").stat().st_mode & 0o777 == 0o600
        assert PASSWORD in server.url


def test_a_server_whose_port_is_taken_says_so(tmp_path: Path) -> None:
    server = ValkeyServer(tmp_path, PASSWORD)
    with socket.create_server(("127.0.0.1", server.port)), pytest.raises(ComponentError) as caught:
        server.start()
    assert "valkey did not start" in str(caught.value)
    assert "Address already in use" in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_no_port_is_given_twice() -> None:
    ports = Ports()
    given = [ports.take() for _ in range(50)]

    assert len(set(given)) == len(given)
    assert not {port + 10_000 for port in given} & set(given)


def test_a_folder_that_nobody_can_reach_keeps_no_database_of_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    tmp_path.chmod(0o700)
    folders = StackFolders.of(tmp_path / "stack")
    assert not folders.database.is_relative_to(tmp_path)

    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert StackFolders.of(tmp_path / "stack").database == tmp_path / "stack" / "postgres"


def running_in_group(group: int) -> list[int]:
    """Return the processes of a group that have not ended."""
    running = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                running.append(process.pid)
    return running


def test_a_database_that_was_half_made_is_made_anew() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # the database's own folder is private
        code = (
            "import sys; from pathlib import Path\n"
            "from automl_airflow.servers.postgres import PostgresServer\n"
            "PostgresServer(Path(sys.argv[1])).component()"
        )
        command = [sys.executable, "-c", code, str(folder / "postgres")]
        process = subprocess.Popen(command, start_new_session=True)
        limit_s = time.monotonic() + 30
        while not list(folder.rglob("PG_VERSION")):
            assert time.monotonic() < limit_s
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        while running_in_group(process.pid):  # what still dies may still write
            assert time.monotonic() < limit_s
            time.sleep(0.01)
        with PostgresServer(folder / "postgres") as server:
            assert server.execute("SELECT 1") == [(1,)]


def test_root_gives_no_folder_of_others_to_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    (tmp_path / "theirs").mkdir()
    owner = (tmp_path / "theirs").stat().st_uid
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    with pytest.raises(ComponentError, match="is somebody else's"):
        PostgresServer(tmp_path / "link")
    assert (tmp_path / "theirs").stat().st_uid == owner
