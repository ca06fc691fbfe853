"""Every error that the platform raises on purpose.

AutoMLError
├── ConfigError              exit 2   a specification, setting or argument is wrong
├── DataError                exit 2   the dataset is wrong
├── DataGateError            exit 3   the dataset has changed suspiciously
├── SearchError              exit 3   the search cannot go on
│   └── SearchSpaceExhaustedError     every legal candidate has been tried
├── TrainingError            exit 3   a network cannot be trained
│   ├── DivergedError                 a loss is not finite
│   ├── OutOfMemoryError              the device has too little memory
│   └── DeviceError          exit 4   the GPUs of this machine cannot be used; retryable
│       └── DeviceBusyError           other processes hold them
├── ExportError              exit 3   the bundle cannot be published
│   ├── ParityError                   the file disagrees with the network
│   └── VerificationError             a published file is not what its manifest says
└── StorageError             exit 4   store or network trouble, retryable
    ├── StorageAccessError            wrong credentials, bucket or rights; not retryable
    ├── StorageFullError              the disk or its quota is full
    ├── NotFoundError                 no such key; not retryable
    ├── PreconditionFailedError       a conditional write lost its race
    ├── StaleWriteError               the study log has grown past the expected version
    ├── NewerSchemaError              written by a newer version; not retryable
    ├── DamagedDataError              stored bytes are not what was written; not retryable
    ├── LeaseLostError                somebody else holds the lease now
    └── StudyBusyError                another run of the study is open
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where.

    Attributes:
        path: the key path of the offending value (`search.workers`), a file's path, or "".
        message: what is wrong with it and what would be right.
    """

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class AutoMLError(Exception):
    """Error that says what happened and what the reader should do about it."""

    retryable: ClassVar[bool] = False  # may the same call succeed later?
    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, hint: str = "", problems: Sequence[Problem] = ()) -> None:
        problems = tuple(problems)
        super().__init__(message, hint, problems)  # all in args: errors cross processes as pickles
        self.message, self.hint, self.problems = message, hint, problems

    def __str__(self) -> str:
        lines = [f"{self.message} Hint: {self.hint}" if self.hint else self.message]
        lines += [f"  - {problem}" for problem in self.problems]
        return "\n".join(lines)


class ConfigError(AutoMLError):
    """A specification, setting or argument is wrong."""

    exit_code = 2


class DataError(AutoMLError):
    """The dataset cannot be used."""

    exit_code = 2


class DataGateError(AutoMLError):
    """The dataset has changed so much that a person has to look at it first."""


class SearchError(AutoMLError):
    """The search cannot go on."""


class SearchSpaceExhaustedError(SearchError):
    """Every legal candidate has been tried."""


class TrainingError(AutoMLError):
    """A network cannot be trained."""


class DivergedError(TrainingError):
    """A loss is not finite."""


class OutOfMemoryError(TrainingError):
    """The device has too little memory for the candidate."""


class DeviceError(TrainingError):
    """The GPUs of this machine cannot be used now; another machine, or a later try, may do."""

    retryable = True
    exit_code = 4


class DeviceBusyError(DeviceError):
    """Other processes hold every GPU that this one may use."""


class ExportError(AutoMLError):
    """The bundle cannot be published."""


class ParityError(ExportError):
    """The exported file and the trained network disagree."""


class VerificationError(ExportError):
    """A published file is not what its manifest says."""


class StorageError(AutoMLError):
    """The store or the network failed; the same call may succeed later."""

    retryable = True
    exit_code = 4


class StorageAccessError(StorageError):
    """Credentials, bucket or rights are wrong."""

    retryable = False


class StorageFullError(StorageError):
    """The disk or its quota is full; nothing that was stored before is damaged."""


class NotFoundError(StorageError):
    """There is no such key."""

    retryable = False


class PreconditionFailedError(StorageError):
    """A conditional write lost its race: the key exists, or has changed."""


class StaleWriteError(StorageError):
    """The study log has grown past the version that the writer had read."""


class NewerSchemaError(StorageError):
    """Something was written by a newer version of the platform."""

    retryable = False


class DamagedDataError(StorageError):
    """Stored bytes are not what was written."""

    retryable = False


class LeaseLostError(StorageError):
    """Somebody else holds the lease now, or it could not be renewed in time."""


class StudyBusyError(StorageError):
    """Another run of the study is open."""
