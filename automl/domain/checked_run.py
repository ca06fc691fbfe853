"""Results of checks: what the later tasks of a run go by without reading its specification."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, ValidationError

from automl.domain.documents import JsonValue
from automl.domain.specification import StudySpec
from automl.errors import ConfigError


class CheckedRun(BaseModel):
    """Run that was checked, as the step `check` returns it: under 1 KB.

    Attributes:
        study: name of the study.
        home: where its state is kept.
        spec: hash of the specification that counts for the run.
        limits: seconds that the process of a step may take, by the step's name.
        time_limit: seconds that the search may take.
        schedule: cron expression of the study's own DAG; None: by hand only.
        timezone: of the schedule.
        workers: how many workers search at the same time.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    study: str
    home: str
    spec: str
    limits: Mapping[str, float]
    time_limit: float
    schedule: str | None
    timezone: str
    workers: int

    @classmethod
    def of(cls, spec: StudySpec, home: str, limits: Mapping[str, float]) -> CheckedRun:
        """Return what later tasks need to know of a specification."""
        return cls(
            study=spec.name,
            home=home,
            spec=spec.spec_hash,
            limits=limits,
            time_limit=spec.search.time_limit.total_seconds(),
            schedule=spec.schedule,
            timezone=spec.timezone,
            workers=spec.search.workers,
        )

    @classmethod
    def from_json(cls, document: object) -> CheckedRun:
        """Return what a check has left.

        Raises:
            ConfigError: it has left nothing, or what an earlier version leaves.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            found = "nothing" if document is None else f"only {document!r}"
            raise ConfigError(
                f"The task check has left {found} for this run.",
                "clear the task check, and then this one: check stores the run's specification",
            ) from error

    def to_json(self) -> dict[str, JsonValue]:
        """Return the step's result."""
        return self.model_dump(mode="json")
