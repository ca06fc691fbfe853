"""What the errors of boto3 mean for the platform."""

from __future__ import annotations

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

_ACCESS_STATUSES = {301, 400, 401, 403, 404, 405, 501}
_PASSING_CODES = {"RequestTimeout", "RequestTimeTooSkewed", "BadDigest", "IncompleteBody"}
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
_HINTS = {
    "NoSuchBucket": "create the bucket, or correct AUTOML_HOME and AWS_ENDPOINT_URL",
    "404": "create the bucket, or correct AUTOML_HOME and AWS_ENDPOINT_URL",
    "InvalidBucketName": "correct the bucket's name in AUTOML_HOME",
    "AccessDenied": "let these credentials list the bucket and get, put and delete objects in it",
    "PermanentRedirect": "set AWS_DEFAULT_REGION to the bucket's region",
    "301": "set AWS_DEFAULT_REGION to the bucket's region",
    "NotImplemented": "use a server with conditional writes, such as AWS S3, or a folder",
}
_CREDENTIALS_HINT = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run with a role"
)


def place(endpoint: str, bucket: str) -> str:
    """Return a name for the bucket without any secret: no user, no query of the endpoint."""
    if not endpoint:
        return f"Bucket {bucket}"
    parts = urlsplit(endpoint)
    return f"Bucket {bucket} at {parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def is_conflict(error: ClientError) -> bool:
    """Return whether a conditional write was refused because of its condition."""
    return _status(error) == 412 or _code(error) in {
        "PreconditionFailed",
        "ConditionalRequestConflict",
    }


def is_missing(error: ClientError) -> bool:
    """Return whether the key is missing; a missing bucket is another matter."""
    is_head = _code(error) == "404" and error.operation_name == "HeadObject"
    return is_head or _code(error) == "NoSuchKey"


def translate(error: Exception, endpoint: str, bucket: str) -> StorageError:
    """Return the platform's error for one of boto3's; it names the place, never a secret."""
    where = place(endpoint, bucket)
    if not isinstance(error, (ClientError, BotoCoreError)) and error.__context__ is not None:
        cause = error.__context__  # transfers wrap the error that tells more
        if isinstance(cause, (ClientError, BotoCoreError)):
            return translate(cause, endpoint, bucket)
    if isinstance(error, ClientError):
        return _translate_reply(error, where)
    if isinstance(error, _NO_CREDENTIALS):
        return StorageAccessError(
            f"{where}: no usable credentials ({type(error).__name__}).", _CREDENTIALS_HINT
        )
    if isinstance(error, SSLError):
        return StorageAccessError(
            f"{where}: the TLS connection was refused.",
            "correct AWS_ENDPOINT_URL, or set AWS_CA_BUNDLE to the server's authority",
        )
    if isinstance(error, (ParamValidationError, ValueError)):
        return StorageAccessError(
            f"{where}: the address is not valid.", "correct AUTOML_HOME and AWS_ENDPOINT_URL"
        )
    return StorageError(
        f"{where} cannot be reached ({type(error).__name__}).",
        "is the server up, and AWS_ENDPOINT_URL right?",
    )


def _translate_reply(error: ClientError, where: str) -> StorageError:
    code = _code(error)
    message = f"{where} answered {code} to {error.operation_name}."
    if _status(error) in _ACCESS_STATUSES and code not in _PASSING_CODES:
        return StorageAccessError(message, _HINTS.get(code, _CREDENTIALS_HINT))
    return StorageError(message, "try again; if it stays, look at the server's log")


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "unknown")


def _status(error: ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
