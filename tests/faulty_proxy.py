"""A real HTTP proxy in front of a server, which loses, cuts, delays and replaces replies."""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_HOP_HEADERS = {"connection", "expect", "keep-alive", "transfer-encoding"}
_UPSTREAM_S = 60.0


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for."""

    method: str
    path: str
    body: bytes = field(repr=False)
    headers: dict[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a request.

    Attributes:
        forwards: whether the server gets it.
        replies: whether the client gets an answer; if not, its connection is cut.
        body_bytes: how much of the answer's body the client gets; None for all.
        flips_a_bit: whether the answer's body is damaged.
        delay_s: how long the answer is held back.
        status: HTTP status of the proxy's own answer; 0 for the server's.
        code: S3's code in the proxy's own answer.
        extra: further XML elements of the proxy's own answer.
    """

    forwards: bool = True
    replies: bool = True
    body_bytes: int | None = None
    flips_a_bit: bool = False
    delay_s: float = 0.0
    status: int = 0
    code: str = ""
    extra: str = ""


LOST_REQUEST = Fault(forwards=False, replies=False)
LOST_REPLY = Fault(replies=False)


def refusal(status: int, code: str, extra: str = "") -> Fault:
    """Return a fault that answers with S3's error document instead of the server."""
    return Fault(forwards=False, status=status, code=code, extra=extra)


def cut_body(after_bytes: int) -> Fault:
    """Return a fault that cuts the connection within the answer's body."""
    return Fault(body_bytes=after_bytes)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: dict[str, str]  # names in small letters
    body: bytes


Matcher = Callable[[Request], bool]


@dataclass(slots=True)
class _Plan:
    fault: Fault
    times: int
    matches: Matcher


class FaultyProxy:
    """A proxy on a free port of 127.0.0.1; without plans it only forwards.

    Args:
        upstream: the server's address, such as `http://127.0.0.1:8333`.
    """

    def __init__(self, upstream: str) -> None:
        self._plans: list[_Plan] = []
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._is_off = False
        self.requests: list[Request] = []
        self._server = _Server(self, urlsplit(upstream).netloc)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.switch_off()  # ends connections that are kept alive, and so their threads
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def plan(self, fault: Fault, times: int = 1, matches: Matcher = lambda _: True) -> None:
        """Let `fault` happen to the next `times` requests that match."""
        with self._lock:
            self._plans.append(_Plan(fault, times, matches))

    def switch_off(self) -> None:
        """Cut all connections, and every new one at once, as if the server were gone."""
        with self._lock:
            self._is_off = True
            for connection in self._sockets:
                with contextlib.suppress(OSError):  # it is closed already
                    connection.shutdown(socket.SHUT_RDWR)

    def switch_on(self) -> None:
        """Forward again."""
        with self._lock:
            self._is_off = False

    @contextlib.contextmanager
    def outage(self, seconds: float) -> Iterator[threading.Thread]:
        """Be away for some time, beginning now; the block need not wait for the end."""
        self.switch_off()
        timer = threading.Timer(seconds, self.switch_on)
        timer.start()
        try:
            yield timer
        finally:
            timer.join()

    def count(self, method: str, text: str = "") -> int:
        """Return how many requests of `method` had `text` in their path and query."""
        return sum(seen.method == method and text in seen.path for seen in self.requests)

    def _note(self, request: Request) -> None:
        self.requests.append(request)

    def _admits(self, connection: socket.socket) -> bool:
        with self._lock:
            if not self._is_off:
                self._sockets.add(connection)
            return not self._is_off

    def _forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.discard(connection)

    def _fault_of(self, request: Request) -> Fault:
        with self._lock:
            self._note(request)
            for plan in self._plans:
                if plan.times > 0 and plan.matches(request):
                    plan.times -= 1
                    return plan.fault
        return Fault()


class _Server(ThreadingHTTPServer):
    """Serves each connection in a thread."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, proxy: FaultyProxy, upstream: str) -> None:
        self.proxy, self.upstream = proxy, upstream
        super().__init__(("127.0.0.1", 0), _Exchange)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: connections are meant to break here."""


class _Exchange(BaseHTTPRequestHandler):
    """One connection of a client."""

    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self._is_admitted = self.server.proxy._admits(self.connection)

    def finish(self) -> None:
        self.server.proxy._forget(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def handle(self) -> None:
        if self._is_admitted:
            super().handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, self._read_body(headers), headers)
        fault = self.server.proxy._fault_of(request)
        answer = _forward(self.server.upstream, request) if fault.forwards else None
        time.sleep(fault.delay_s)
        if fault.status:
            answer = _refuse(fault, request)
        if answer is None or not fault.replies:
            self._cut()
            return
        if fault.flips_a_bit:
            damaged = bytes([answer.body[0] ^ 1]) + answer.body[1:]
            answer = replace(answer, body=damaged)
        self._answer(answer, fault.body_bytes)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815

    def _read_body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return b"".join(_chunks(self.rfile))
        return self.rfile.read(int(headers.get("content-length", 0)))

    def _answer(self, answer: _Answer, cut: int | None) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            if name not in _HOP_HEADERS:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body if cut is None else answer.body[:cut])
        if cut is not None:
            self.close_connection = True

    def _cut(self) -> None:
        """Reset the connection: the client sees it break, not end."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True


def _chunks(file: Any) -> Iterator[bytes]:
    while size := int(file.readline().split(b";")[0], 16):
        yield file.read(size)
        file.readline()
    while file.readline().strip():  # trailers
        pass


def _forward(upstream: str, request: Request) -> _Answer:
    connection = http.client.HTTPConnection(upstream, timeout=_UPSTREAM_S)
    try:
        connection.putrequest(
            request.method, request.path, skip_host=True, skip_accept_encoding=True
        )
        for name, value in request.headers.items():
            if name not in _HOP_HEADERS | {"content-length"}:
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(request.body)))
        connection.endheaders(request.body)
        reply = connection.getresponse()
        body = reply.read()
        headers = {name.lower(): value for name, value in reply.getheaders()}
    finally:
        connection.close()
    if request.method != "HEAD" and reply.status != HTTPStatus.NO_CONTENT:
        headers["content-length"] = str(len(body))
    return _Answer(reply.status, headers, body)


def _refuse(fault: Fault, request: Request) -> _Answer:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{fault.code}</Code><Message>{fault.code}</Message>{fault.extra}</Error>"
    ).encode()
    headers = {"content-type": "application/xml", "content-length": str(len(body))}
    return _Answer(fault.status, headers, b"" if request.method == "HEAD" else body)
