"""Errors of boto3, and what they mean for the platform."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigNotFound,
    CredentialRetrievalError,
    NoAuthTokenError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
    SSOError,
    UnauthorizedSSOTokenError,
)

from automl.errors import StorageAccessError, StorageError
from automl.storage.s3.retries import OutOfTimeError, code_of, describe, status_of

_ACCESS_STATUSES = {400, 401, 403, 404, 405, 501}
_REDIRECTIONS = {301, 302, 307, 308}
_NO_CREDENTIALS = (
    ConfigNotFound,
    CredentialRetrievalError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    UnauthorizedSSOTokenError,
)
_CREDENTIALS_HINT = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run with a role"
)
_RIGHTS = {
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "HeadBucket": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "DeleteObject": "s3:DeleteObject",
}
ALL_RIGHTS = ", ".join(sorted(set(_RIGHTS.values())))


@dataclass(frozen=True, slots=True)
class _Meaning:
    """Meaning of a code of S3, and what helps."""

    fault: str
    remedy: str


_EXPIRED = _Meaning(
    "the session's credentials have expired",
    "renew them (AWS_SESSION_TOKEN, `aws sso login` or the role) and start the step again",
)
_NO_BUCKET = _Meaning(
    "there is no such bucket", "create the bucket, or correct AUTOML_HOME and AWS_ENDPOINT_URL"
)
_OTHER_REGION = _Meaning(
    "the bucket is in another region{region}", "set AWS_DEFAULT_REGION to the bucket's region"
)
_REDIRECTED = _Meaning(
    "the server redirects to another address{region}",
    "correct AWS_ENDPOINT_URL (https?), or set AWS_DEFAULT_REGION to the bucket's region",
)
_DENIED = _Meaning(
    "these credentials may not do that",
    "grant them {right}; a home needs {all_rights} on the bucket and its objects",
)
_MEANINGS = {
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidToken": _Meaning(
        "the session token is not valid", "correct or unset AWS_SESSION_TOKEN, or log in again"
    ),
    "InvalidAccessKeyId": _Meaning(
        "the server does not know the access key",
        "correct AWS_ACCESS_KEY_ID or AWS_PROFILE, and see that AWS_ENDPOINT_URL is its server",
    ),
    "SignatureDoesNotMatch": _Meaning(
        "the secret key does not belong to the access key",
        "correct AWS_SECRET_ACCESS_KEY; a proxy that rewrites the Host header has the same effect",
    ),
    "RequestTimeTooSkewed": _Meaning(
        "this machine's clock and the server's are too far apart",
        "synchronise the clock (timedatectl, chrony); S3 tolerates 15 minutes",
    ),
    "NoSuchBucket": _NO_BUCKET,
    "404": _NO_BUCKET,
    "InvalidBucketName": _Meaning(
        "the bucket's name is not valid", "correct the bucket's name in AUTOML_HOME"
    ),
    "PermanentRedirect": _OTHER_REGION,
    "TemporaryRedirect": _OTHER_REGION,
    "AuthorizationHeaderMalformed": _OTHER_REGION,
    "IllegalLocationConstraintException": _OTHER_REGION,
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "AccountProblem": _DENIED,
    "403": _DENIED,
    "NotImplemented": _Meaning(
        "the server does not know this operation",
        "use a server with conditional writes, such as AWS S3, or a folder",
    ),
}


def place(endpoint: str, bucket: str) -> str:
    """Return a name for the bucket without any secret: no user, no query of the endpoint."""
    if not endpoint:
        return f"Bucket {bucket}"
    parts = urlsplit(endpoint)
    return f"Bucket {bucket} at {parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def is_conflict(error: ClientError) -> bool:
    """Return whether a conditional write lost its race.

    412: the condition does not hold. 409: another write of the key is under way. 404: the key that
    was to be replaced is gone.
    """
    return status_of(error) in {409, 412} or is_missing(error)


def is_missing(error: ClientError) -> bool:
    """Return whether the key is missing; a missing bucket is another matter."""
    is_head = code_of(error) == "404" and error.operation_name == "HeadObject"
    return is_head or code_of(error) == "NoSuchKey"


def translate(error: Exception, endpoint: str, bucket: str, key: str = "") -> StorageError:
    """Return the platform's error for one of boto3's; it names the place, never a secret.

    Args:
        error: what boto3 raised, or `OutOfTimeError`.
        endpoint: address of the server.
        bucket: name of the bucket.
        key: what the operation was about, if one key.
    """
    where = place(endpoint, bucket)
    if isinstance(error, OutOfTimeError):
        return _out_of_time(error, where, key)
    if not isinstance(error, (ClientError, BotoCoreError)) and error.__context__ is not None:
        cause = error.__context__  # transfers wrap the error that tells more
        if isinstance(cause, (ClientError, BotoCoreError)):
            return translate(cause, endpoint, bucket, key)
    if isinstance(error, ClientError):
        return _translate_reply(error, where)
    if isinstance(error, _NO_CREDENTIALS):
        return StorageAccessError(
            f"{where}: no usable credentials ({type(error).__name__}).", _CREDENTIALS_HINT
        )
    if isinstance(error, SSLError):
        return StorageAccessError(
            f"{where}: TLS failed ({_tls_reason(error)}).",
            "correct AWS_ENDPOINT_URL (http or https?), or set AWS_CA_BUNDLE to the authority that "
            "signed the server's certificate",
        )
    if isinstance(error, (ParamValidationError, ValueError)):
        return StorageAccessError(
            f"{where}: the address is not valid.", "correct AUTOML_HOME and AWS_ENDPOINT_URL"
        )
    return StorageError(
        f"{where} cannot be reached ({type(error).__name__}).",
        "is the server up, and AWS_ENDPOINT_URL right?",
    )


def _out_of_time(error: OutOfTimeError, where: str, key: str) -> StorageError:
    last = error.__cause__
    assert last is not None
    what = f"{error.operation} of {key}" if key else error.operation
    times = "once" if error.attempts == 1 else f"{error.attempts} times"
    tried = f"{what} failed {times} in {error.seconds:.0f} s, at last with {describe(last)}."
    if isinstance(last, ClientError):
        return StorageError(
            f"{where} is in trouble: {tried}",
            "look at the server's log and load, then try again; nothing stored is lost",
        )
    return StorageError(
        f"{where} cannot be reached: {tried}",
        "are server and network up, and AWS_ENDPOINT_URL right? Then try again; nothing stored is "
        "lost",
    )


def _translate_reply(error: ClientError, where: str) -> StorageError:
    code = code_of(error)
    message = f"{where} refused {error.operation_name} ({code})"
    is_redirected = status_of(error) in _REDIRECTIONS
    meaning = _MEANINGS.get(code, _REDIRECTED if is_redirected else None)
    if meaning is not None:
        right = _RIGHTS.get(error.operation_name, f"s3:{error.operation_name}")
        fault = meaning.fault.format(region=_region(error))
        remedy = meaning.remedy.format(right=right, all_rights=ALL_RIGHTS)
        return StorageAccessError(f"{message}: {fault}.", remedy)
    if status_of(error) in _ACCESS_STATUSES:
        return StorageAccessError(f"{message}.", _CREDENTIALS_HINT)
    return StorageError(f"{message}.", "try again; if it stays, look at the server's log")


def _region(error: ClientError) -> str:
    """Return ": eu-west-1" if the server tells the bucket's region, else ""."""
    document: Mapping[str, object] = error.response.get("Error", {})
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = document.get("Region") or headers.get("x-amz-bucket-region")
    return f": {region}" if region else ""


def _tls_reason(error: SSLError) -> str:
    """Return OpenSSL's words for it, such as "certificate verify failed: self-signed"."""
    text = str(error.kwargs["error"])
    return text.partition("] ")[2].partition(" (_ssl")[0] or type(error).__name__
