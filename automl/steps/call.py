"""Calls of steps: what a step is given, and its form as the payload of a process."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from automl.data.files import OnProgress
from automl.domain.documents import JsonValue
from automl.domain.facts import Origin, OriginKind
from automl.domain.parsing import Purpose
from automl.domain.specification import StudySpec
from automl.errors import ConfigError, Problem
from automl.machine.signals import StopSignal
from automl.steps.study_file import load_study_file, study_spec

_KEYS = frozenset({"spec", "study_file", "study", "run", "origin", "worker", "snapshot", "cause"})


class Need(StrEnum):
    """A key of the payload that not every step needs."""

    WORKER = "worker"
    SNAPSHOT = "snapshot"
    CAUSE = "cause"


def _unseen(done: int, total: int, what: str) -> None:
    """Show no progress."""


@dataclass(frozen=True, slots=True)
class StepCall:
    """Arguments of a step; the table of steps says which of the optional ones it needs.

    Attributes:
        spec: the study's specification; None: the one that is stored for the run counts.
        run: id of the run.
        origin: who started the run.
        study_file: path of the file that holds the specification, if one does.
        worker: index of the worker within the run.
        snapshot: id of the snapshot that `prepare` returned.
        cause: why the run is closed as failed.
        study: name of the study, for a call without a specification.
        stop: becomes set when the process is asked to stop.
        on_progress: receives how a long step gets on.
    """

    spec: StudySpec | None
    run: str
    origin: str
    study_file: str | None = None
    worker: int | None = None
    snapshot: str | None = None
    cause: str | None = None
    study: str = ""
    stop: StopSignal = field(default_factory=StopSignal)
    on_progress: OnProgress = _unseen

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.study if self.spec is None else self.spec.name

    @property
    def slice_s(self) -> float | None:
        """Seconds for which a worker may keep its pool slot; None where there are no pools."""
        assert self.spec is not None
        has_pools = Origin.of(self.origin).kind is OriginKind.AIRFLOW
        return self.spec.search.slice.total_seconds() if has_pools else None

    def payload(self) -> dict[str, JsonValue]:
        """Return what `python -m automl.steps STEP` reads to make the same call."""
        given = None if self.study_file else self.spec
        return {
            "spec": None if given is None else given.model_dump(mode="json", by_alias=True),
            "study_file": self.study_file,
            "study": self.study or None,
            "run": self.run,
            "origin": self.origin,
            "worker": self.worker,
            "snapshot": self.snapshot,
            "cause": self.cause,
        }


def parse_call(payload: object, needs: Collection[Need], stop: StopSignal) -> StepCall:
    """Return the call that a payload describes.

    Args:
        payload: a mapping as read from JSON; see `StepCall.payload`.
        needs: the optional keys that the step needs.
        stop: becomes set when the process is asked to stop.

    Raises:
        ConfigError: with everything that is wrong, that of the specification included.
    """
    if not isinstance(payload, Mapping):
        raise ConfigError(
            f"The payload is a JSON {type(payload).__name__}, not an object.",
            "pass `study`, `spec` or `study_file`, `run`, and what the step needs",
        )
    keys = _Keys(payload)
    run, origin = keys.text("run", is_needed=True), keys.text("origin")
    study_file, study = keys.text("study_file"), keys.text("study") or ""
    worker = keys.index("worker", is_needed=Need.WORKER in needs)
    snapshot = keys.text("snapshot", is_needed=Need.SNAPSHOT in needs)
    cause = keys.text("cause", is_needed=Need.CAUSE in needs)
    try:
        spec = _read_spec(payload.get("spec"), study_file, study, origin or "")
    except ConfigError as error:
        if keys.problems:
            keys.problems += error.problems or [Problem("spec", error.message)]
            raise keys.error() from error
        raise
    if keys.problems or run is None:
        raise keys.error()
    return StepCall(spec, run, origin or "", study_file, worker, snapshot, cause, study, stop)


def _read_spec(
    document: object, study_file: str | None, study: str, origin: str
) -> StudySpec | None:
    """Return the specification in a payload, or in the file that it names; None without one."""
    if study_file is not None:
        return load_study_file(Path(study_file))
    if document is None and study:
        return None
    if document is None:
        raise ConfigError(
            "The payload has no specification.", "pass `study`, `spec` or `study_file`"
        )
    is_estimator = Origin.of(origin).kind is OriginKind.PYTHON
    purpose = Purpose.ESTIMATOR if is_estimator else Purpose.PUBLISH
    return study_spec(document, purpose=purpose)


class _Keys:
    """Reads the keys of a payload, and collects what is wrong with them.

    Attributes:
        problems: all that is wrong so far.
    """

    def __init__(self, payload: Mapping[str, object]) -> None:
        self._payload = payload
        self.problems = [
            Problem(str(key), f"unknown; known here: {', '.join(sorted(_KEYS))}")
            for key in payload
            if key not in _KEYS
        ]

    def text(self, key: str, *, is_needed: bool = False) -> str | None:
        """Return the text under `key`, None without one."""
        value = self._payload.get(key) or None
        if value is None and is_needed:
            self.problems.append(Problem(key, "this step needs it"))
        if value is None or isinstance(value, str):
            return value
        self.problems.append(Problem(key, f"{value!r} is not a text"))
        return None

    def index(self, key: str, *, is_needed: bool) -> int | None:
        """Return the number from 0 under `key`, None without one."""
        value = self._payload.get(key)
        if value is None and is_needed:
            self.problems.append(Problem(key, "this step needs it"))
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
            return value
        self.problems.append(Problem(key, f"{value!r} is not an index, counted from 0"))
        return None

    def error(self) -> ConfigError:
        """Return the error that lists the problems."""
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        return ConfigError(f"The payload has {count}.", "correct the keys below", self.problems)
