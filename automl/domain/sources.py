"""Places that studies may read: what `AUTOML_SOURCES` allows, and nothing of the home."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote, urlsplit

from automl.domain.facts import Origin, OriginKind
from automl.domain.settings import Settings
from automl.errors import ConfigError

ARCHIVE_SUFFIXES = (".zip", ".tar")  # of files that are read in place, as folders are
_LOOKS = 100
_FORMS = "use a folder, file:///folder or s3://bucket/prefix"
_MOVE = "keep the data in a folder of their own"
_SET_IT = (
    "set AUTOML_SOURCES to the places that studies may read, such as /data,s3://bucket/datasets, "
    "where Airflow's workers run"
)


def place_of(uri: str) -> str:
    """Return the one spelling of a path or URI: links resolved, no `..`, no slash at its end.

    Raises:
        ConfigError: it names nothing that can be read; no login that it may hold is shown.
    """
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return _real(uri)
    if scheme == "s3":
        bucket, _, key = rest.partition("/")
        key = key.rstrip("/")
        if not bucket or set(bucket) & set("@?#%:") or _is_crooked(key):
            raise ConfigError(
                "The s3:// address is not plain.",
                "write s3://bucket/prefix without '.', '..' and empty segments",
            )
        return f"s3://{bucket}/{key}".rstrip("/")
    parts = urlsplit(uri) if scheme == "file" else None
    if parts is None:
        raise ConfigError(f"Data cannot be read from {scheme}://.", _FORMS)
    if parts.netloc not in {"", "localhost"} or parts.query or parts.fragment or not parts.path:
        raise ConfigError("The file:// address is no folder of this machine.", _FORMS)
    return _real(unquote(parts.path))


def _is_crooked(key: str) -> bool:
    return bool(key) and any(part in {"", ".", ".."} for part in key.split("/"))


def _real(path: str) -> str:
    try:
        return real_path(os.path.expanduser(path))  # noqa: PTH111 - pathlib's raises
    except ValueError as error:
        raise ConfigError(f"{path!r} is no path: {error}.", _FORMS) from error


def real_path(path: str | os.PathLike[str]) -> str:
    """Return a path with its links resolved; it is looked at again if one is replaced meanwhile."""
    for _ in range(_LOOKS):
        with suppress(OSError):  # a link that is none any more between two looks
            return os.path.realpath(path)
    return os.path.realpath(path)


def is_within(place: str, root: str) -> bool:
    """Return whether a place is another or lies in it; both as `place_of` spells them."""
    return place == root or place.startswith(root.rstrip("/") + "/")


@dataclass(frozen=True, slots=True)
class Sources:
    """Places that a run may read; a value that goes with its data to every process.

    Attributes:
        home: where everything is stored, which is never read as data.
        prefixes: places that may be read; all are spelled as `place_of` does.
        is_closed: nothing else may be read, even without any prefix; else no prefix means any.
    """

    home: str
    prefixes: tuple[str, ...] = ()
    is_closed: bool = False

    @classmethod
    def of(cls, settings: Settings, origin: Origin) -> Self:
        """Return what a run may read; under Airflow nothing that is not allowed explicitly.

        Raises:
            ConfigError: a prefix of `AUTOML_SOURCES` cannot be used.
        """
        is_closed = origin.kind is OriginKind.AIRFLOW
        prefixes = []
        for prefix in settings.sources:
            if is_closed and "://" not in prefix and not prefix.startswith("/"):
                raise ConfigError(f"AUTOML_SOURCES has {prefix!r}.", "use absolute folders")
            try:
                prefixes.append(place_of(prefix))
            except ConfigError as error:
                raise ConfigError(f"AUTOML_SOURCES: {error.message}", error.hint) from error
        return cls(place_of(settings.home), tuple(prefixes), is_closed)

    def check_setting(self) -> None:
        """Refuse to read anything where a setting must say what may be read.

        Raises:
            ConfigError: it does not.
        """
        if self.is_closed and not self.prefixes:
            raise ConfigError("AUTOML_SOURCES is not set, so that nothing may be read.", _SET_IT)

    def place(self, uri: str) -> str:
        """Return the place that a location of data names, as `place_of` spells it.

        Raises:
            ConfigError: it may not be read; what is there is neither looked at nor told.
        """
        self.check_setting()
        place = place_of(uri)
        self.check(place, uri)
        if place == "/":
            raise ConfigError("/ is no dataset.", "name the folder or the file of the data")
        if is_within(self.home, place):
            raise ConfigError(f"{uri} holds AUTOML_HOME, which is never a source.", _MOVE)
        return place

    def check(self, place: str, name: str) -> None:
        """Refuse a file or folder that may not be read.

        Args:
            place: as `place_of` spells it.
            name: what messages call it; they do not tell where a link leads.

        Raises:
            ConfigError: it is in the home, or in none of the prefixes.
        """
        problem = self.problem(place)
        if problem:
            allowed = ", ".join(self.prefixes) or "nothing"
            hint = _MOVE if is_within(place, self.home) else f"AUTOML_SOURCES allows {allowed}"
            raise ConfigError(f"{name} {problem}.", hint)

    def problem(self, place: str) -> str:
        """Return why a place may not be read, as the end of a sentence; "" if it may."""
        if is_within(place, self.home):
            return "is, or leads, in AUTOML_HOME, which is never a source"
        is_allowed = any(is_within(place, prefix) for prefix in self.prefixes)
        if is_allowed or not (self.prefixes or self.is_closed):
            return ""
        return "is, or leads, outside the places that studies may read"
