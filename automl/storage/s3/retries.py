"""Retries of requests to S3, as long as time allows.

boto3's own retry modes count attempts, so how long an outage they ride out depends on how fast
the server fails. Here time decides: boto3 is told not to retry, and asks this module after each
attempt (event `needs-retry`).
"""

from __future__ import annotations

import logging
import random
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError, HTTPClientError, SSLError
from botocore.exceptions import ConnectionError as ConnectError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_PASSING_STATUSES = {429, 500, 502, 503, 504, 507}
_THROTTLED = {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded"}
_PASSING_CODES = {
    *_THROTTLED,
    "BadDigest",  # these are refused because they were damaged or held up on their way
    "IncompleteBody",
    "RequestTimeout",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}
_CONFLICT = 409
_STARTED = "automl-started-s"  # key in the context of a request

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class S3Limits:
    """Limits of a store's patience with its server.

    Attributes:
        total_s: a request is repeated until so much time is over; the last attempt may take its
            own time beyond it.
        connect_s: time to connect in one attempt.
        read_s: silence of the server in one attempt. A contended conditional write takes seconds.
        cleanup_s: as `total_s`, for requests that only tidy up after a failed one.
        pause_s: upper bound of the random pause after the first failure; it doubles with each.
        longest_pause_s: upper bound of all pauses, and so of how late a recovery is noticed.
    """

    total_s: float = 90.0
    connect_s: float = 5.0
    read_s: float = 30.0
    cleanup_s: float = 5.0
    pause_s: float = 0.2
    longest_pause_s: float = 5.0


DEFAULT_LIMITS = S3Limits()


class OutOfTimeError(Exception):
    """A request has failed for as long as the limits allow; its cause is the last failure.

    Attributes:
        operation: S3's name of the request.
        attempts: how often it was tried.
        seconds: from the first attempt to the last failure.
    """

    def __init__(self, operation: str, attempts: int, seconds: float) -> None:
        super().__init__(operation, attempts, seconds)
        self.operation, self.attempts, self.seconds = operation, attempts, seconds


class Budget:
    """The time that the requests of one operation share."""

    def __init__(self, limits: S3Limits) -> None:
        self._limits = limits
        self._attempts = 0
        self.started_s = time.monotonic()

    def restart(self) -> None:
        """Have the whole time again, because the operation has come further."""
        self._attempts, self.started_s = 0, time.monotonic()

    def pause(self, operation: str, failure: Exception) -> None:
        """Wait after an answer to `operation` that broke off while it was read.

        Raises:
            OutOfTimeError: there is no time left.
        """
        self._attempts += 1
        attempt = _Attempt(operation, self._attempts, self.started_s)
        time.sleep(attempt.pause_s(failure, self._limits))


class Retries:
    """Decides after each attempt whether it is repeated, and when.

    Args:
        limits: how long.
    """

    def __init__(self, limits: S3Limits) -> None:
        self._limits = limits
        self._operation = threading.local()

    def watch(self, client: S3Client) -> None:
        """Decide about all requests of `client`, which must not retry by itself."""
        client.meta.events.register("before-call.s3", self._start)
        decide: Any = self._decide  # the stubs forget that handlers of this event answer
        client.meta.events.register("needs-retry.s3", decide)

    @contextmanager
    def one_budget(self) -> Iterator[Budget]:
        """Let all requests that this thread makes in the block share the time of one."""
        self._operation.budget = budget = Budget(self._limits)
        try:
            yield budget
        finally:
            del self._operation.budget

    def _start(self, params: dict[str, Any], **_: object) -> None:
        budget: Budget | None = getattr(self._operation, "budget", None)
        params["context"][_STARTED] = time.monotonic() if budget is None else budget.started_s

    def _decide(
        self,
        *,
        response: tuple[object, dict[str, Any]] | None,
        operation: Any,
        attempts: int,
        caught_exception: Exception | None,
        request_dict: dict[str, Any],
        **_: object,
    ) -> float | None:
        """Return the pause before the next attempt in seconds, or None to leave it at this one."""
        failure = caught_exception
        if response is not None:
            if "Error" not in response[1]:
                return None
            failure = ClientError(response[1], operation.name)  # type: ignore[arg-type]
        is_conditional = bool({"If-Match", "If-None-Match"} & set(request_dict["headers"]))
        if failure is None or not _may_pass(failure, is_conditional=is_conditional):
            return None
        attempt = _Attempt(operation.name, attempts, request_dict["context"][_STARTED])
        return attempt.pause_s(failure, self._limits)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """An attempt that failed: the how-manieth, and when the first began by the monotonic clock."""

    operation: str
    number: int
    started_s: float

    def pause_s(self, failure: Exception, limits: S3Limits) -> float:
        """Return how long to wait before the next: full jitter, never beyond the limit.

        Raises:
            OutOfTimeError: there is no time left.
        """
        is_cleanup = self.operation == "AbortMultipartUpload"
        total_s = limits.cleanup_s if is_cleanup else limits.total_s
        spent_s = time.monotonic() - self.started_s
        if spent_s >= total_s:
            raise OutOfTimeError(self.operation, self.number, spent_s) from failure
        if self.number == 1:
            reason = describe(failure)
            log.warning("%s failed (%s), trying again for %g s", self.operation, reason, total_s)
        longest_s = limits.longest_pause_s
        if not _is_throttling(failure):
            longest_s = min(longest_s, limits.pause_s * 2.0 ** min(self.number - 1, 30))
        pause_s = random.uniform(0, longest_s)  # noqa: S311 - no secret
        return min(pause_s, total_s - spent_s)


def _may_pass(failure: Exception, *, is_conditional: bool) -> bool:
    """Return whether the same request may succeed later; a lost race does not count as trouble."""
    if isinstance(failure, ClientError):
        status, code = status_of(failure), code_of(failure)
        if status == _CONFLICT:
            return not is_conditional
        return status in _PASSING_STATUSES or code in _PASSING_CODES
    if isinstance(failure, SSLError):
        return not is_wrong_tls(failure)
    return isinstance(failure, ConnectError | HTTPClientError)


def is_wrong_tls(failure: SSLError) -> bool:
    """Return whether TLS fails for good, and not because a connection broke while it was made."""
    cause: object = failure.kwargs["error"]
    while isinstance(cause, BaseException):
        if isinstance(cause, ssl.SSLError):
            return not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError)
        cause = cause.args[0] if cause.args else None  # urllib3 wraps it
    return True


def _is_throttling(failure: Exception) -> bool:
    if not isinstance(failure, ClientError):
        return False
    return status_of(failure) in {429, 503} or code_of(failure) in _THROTTLED


def code_of(error: ClientError) -> str:
    """Return the code of S3's error document, or the HTTP status where there is no document."""
    return error.response.get("Error", {}).get("Code", "unknown")


def status_of(error: ClientError) -> int:
    """Return the HTTP status."""
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def describe(failure: BaseException) -> str:
    """Return what went wrong in an attempt, in words without any secret."""
    if isinstance(failure, ClientError):
        return f"{status_of(failure)} {code_of(failure)}"
    return type(failure).__name__
