"""Free ports of 127.0.0.1."""

from __future__ import annotations

import secrets
import socket

_FIRST, _COUNT = 11_000, 10_000
_PARTNER = 10_000  # above a port of SeaweedFS, which takes that one too


class Ports:
    """Ports that nobody listens on, and their partners; none is given twice.

    They are below those that systems give to outgoing connections, so that a server which is
    started again finds its port free.
    """

    def __init__(self) -> None:
        self._next, self._left = secrets.randbelow(_COUNT), _COUNT

    def take(self) -> int:
        """Return a free port; the one 10,000 above it is free too."""
        while self._left:
            port = _FIRST + self._next % _COUNT
            self._next, self._left = self._next + 1, self._left - 1
            if _is_free(port) and _is_free(port + _PARTNER):
                return port
        raise RuntimeError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # as servers do: connections that have just ended do not keep a port
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
