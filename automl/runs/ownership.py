"""Owners of studies: whose runs a study is for, and how it is given to another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from automl.domain.documents import JsonValue
from automl.domain.events import StudyGiven
from automl.domain.facts import FORM_DAG, Origin, OriginKind
from automl.domain.study import Study
from automl.errors import ConfigError, Problem
from automl.runs.context import StepContext, StoreClock
from automl.storage.home import Home, no_study
from automl.storage.study_log import StudyRecord

_DAG_ID = re.compile(r"[A-Za-z0-9_.-]{1,250}")


def owner_problems(context: StepContext) -> list[Problem]:
    """Return the problem that the study belongs to another than who starts the run, if it does.

    A study without an owner is anybody's. One of the command line is open to everything that runs
    on a person's machine.
    """
    return _problems(context, context.record.refresh())


def check_owner(context: StepContext, study: Study) -> None:
    """Refuse a study that belongs to another than who starts the run.

    Raises:
        ConfigError: it does.
    """
    if problems := _problems(context, study):
        raise ConfigError(f"Study {context.spec.name} belongs to another.", "see below", problems)


def _problems(context: StepContext, study: Study) -> list[Problem]:
    owner, opener, name = study.owner, Origin.of(context.origin), context.spec.name
    if owner is None or _may_open(owner, opener):
        return []
    user = f" --user {opener.user}" if opener.user else ""
    command = f"automl give {name} {opener.dag or OriginKind.CLI}{user}"
    message = f"study {name} belongs to {shown(owner)}, and {shown(opener)} may not continue it: "
    return [Problem("name", f"{message}choose another name, or hand it over with `{command}`")]


def new_owner(context: StepContext, study: Study, now: datetime) -> Iterator[StudyGiven]:
    """Yield that the study belongs to who opens the run, if a DAG does and nobody owns it yet."""
    if study.owner is None and Origin.of(context.origin).kind is OriginKind.AIRFLOW:
        yield StudyGiven(at=now, owner=context.origin, by=context.run)


@dataclass(frozen=True, slots=True)
class Gift:
    """Change of a study's owner.

    Attributes:
        before: the owner before, if there was one.
        owner: the owner from then on.
        is_new: this call changed it; otherwise it was so already.
    """

    before: Origin | None
    owner: Origin
    is_new: bool

    def document(self, study: str) -> dict[str, JsonValue]:
        """Return what `automl give --json` prints."""
        return {
            "schema": 1,
            "study": study,
            "owner": str(self.owner),
            "from": None if self.before is None else str(self.before),
            "changed": self.is_new,
        }


def owner_named(dag: str, user: str | None) -> Origin:
    """Return the owner that a DAG's id names, and for the form's DAG its user.

    Raises:
        ConfigError: there can be no such DAG, or it has no users.
    """
    if dag == OriginKind.CLI and user is None:
        return Origin(OriginKind.CLI)
    if not _DAG_ID.fullmatch(dag):
        raise ConfigError(f"{dag!r} is no id of a DAG.", "use the id of a DAG, or cli")
    if user is not None and dag != FORM_DAG:
        raise ConfigError(
            f"Runs of {dag} are nobody's in particular.", f"--user belongs to {FORM_DAG} alone"
        )
    return Origin(OriginKind.AIRFLOW, dag, user or "")


def give(home: Home, study: str, owner: Origin, who: str) -> Gift:
    """Let a study belong to another from now on; a run that is open goes on.

    Args:
        home: where the study is.
        study: its name.
        owner: the DAG, or the command line.
        who: the person who gives it.

    Raises:
        ConfigError: there is no such study.
    """
    record, clock = StudyRecord(home.study_log(study)), StoreClock(home.store)
    before, is_new = None, False

    def decide(now: Study) -> list[StudyGiven]:
        nonlocal before, is_new
        if not now.runs:
            raise no_study(home, study)
        before, is_new = now.owner, now.owner != owner
        return [StudyGiven(at=clock.now(), owner=str(owner), by=who)] if is_new else []

    record.commit(decide)
    return Gift(before, owner, is_new)


def shown(origin: Origin) -> str:
    """Return in words who opens runs, or owns a study."""
    if origin.kind is OriginKind.CLI:
        return "the command line"
    if origin.kind is OriginKind.AIRFLOW:
        return f"the DAG {origin.dag}" + (f", user {origin.user}" if origin.user else "")
    return "an estimator" if origin.kind is OriginKind.PYTHON else "whoever calls its steps by hand"


def _may_open(owner: Origin, opener: Origin) -> bool:
    if owner.kind is OriginKind.CLI:
        return opener.kind is not OriginKind.AIRFLOW
    is_same = (opener.kind, opener.dag) == (owner.kind, owner.dag)
    return is_same and owner.user in {"", opener.user}
