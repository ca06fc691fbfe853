"""Facts that the opening of a run records, read into values once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from automl.domain.specification import LimitsSection
from automl.errors import DamagedDataError

FORM_DAG = "automl_search"  # runs any study, from the trigger form
_VERSION, _TRIAL_MS = "version", "trial_ms"


class OriginKind(StrEnum):
    """Kinds of those who open runs; each is the text that the log has of one without a DAG."""

    CLI = "cli"
    PYTHON = "python"  # an estimator: no sealed test rows, and nothing is published
    AIRFLOW = "airflow"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Origin:
    """Opener of a run, or owner of a study.

    Attributes:
        kind: what kind of opener it is.
        dag: the DAG, if Airflow opened the run; "" otherwise.
        user: who triggered that DAG from the form; "" for other DAGs, or if it is not known.
    """

    kind: OriginKind
    dag: str = ""
    user: str = ""

    @classmethod
    def of(cls, text: str) -> Origin:
        """Return what the log's text names: `cli`, `airflow:DAG` or `airflow:DAG:USER`."""
        name, _, rest = text.partition(":")
        if name == OriginKind.AIRFLOW:
            dag, _, user = rest.partition(":")
            return cls(OriginKind.AIRFLOW, dag, user)
        is_known = text in {OriginKind.CLI, OriginKind.PYTHON}
        return cls(OriginKind(text) if is_known else OriginKind.OTHER)

    def __str__(self) -> str:
        """Return the text that the log has of it; see `of`."""
        return ":".join(part for part in (self.kind.value, self.dag, self.user) if part)

    def is_dag_of(self, study: str) -> bool:
        """Return whether it is the DAG of the study's own file, which never runs twice at once."""
        return self.kind is OriginKind.AIRFLOW and self.dag == f"automl_{study}"


@dataclass(frozen=True, slots=True)
class SpaceFacts:
    """Facts besides the specification that a run's search space depends on, as the log has them.

    Attributes:
        version: of the search; 1 in logs that do not say.
        trial_ms: how long a training takes that is neither stopped nor shortened; None if the log
            does not say.
        recorded: all of it, by name; the names besides these two are the track's.
    """

    version: int = 1
    trial_ms: int | None = None
    recorded: Mapping[str, int | str] = field(default_factory=dict)

    @classmethod
    def of(cls, recorded: Mapping[str, int | str]) -> SpaceFacts:
        """Return the facts that an event holds.

        Raises:
            DamagedDataError: one of them is no number.
        """
        version = _integer(recorded, _VERSION, "space")
        return cls(
            1 if version is None else version, _integer(recorded, _TRIAL_MS, "space"), recorded
        )


@dataclass(frozen=True, slots=True)
class Terms:
    """Terms of a run that follow from the specification it was opened with.

    Attributes:
        task: what the published file predicts, and from what; "" if the log does not say.
        continues: the published version that it continues instead of searching; None: it searches.
        max_trials: how many trials may reach their outcome in it; None for any number.
        limits: what a candidate may cost.
    """

    task: str
    continues: int | None
    max_trials: int | None
    limits: LimitsSection

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Terms:
        """Return the terms that a recorded specification sets; what it lacks has its default.

        Raises:
            DamagedDataError: a value is none that a specification can have.
        """
        search, final_fit = spec.get("search", {}), spec.get("final_fit", {})
        try:
            limits = LimitsSection.model_validate(search.get("limits", {}))
        except ValidationError as error:
            raise _damaged("spec.search.limits", search["limits"]) from error
        return cls(
            str(spec.get("task", "")),
            _integer(final_fit, "from", "spec.final_fit"),
            _integer(search, "max_trials", "spec.search"),
            limits,
        )


def _integer(document: Mapping[str, Any], name: str, place: str) -> int | None:
    value = document.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise _damaged(f"{place}.{name}", value)


def _damaged(place: str, value: object) -> DamagedDataError:
    return DamagedDataError(
        f"An event `run_opened` of the study log has {value!r} as {place}.",
        "a newer version wrote it, or the log was damaged; see docs/runbook.md",
    )
