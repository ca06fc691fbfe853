"""Record of the DAGs of study files, so that a run goes on when its file is deleted or renamed.

Airflow schedules no task of a DAG that its file does not define any more, and a run of it never
ends. Therefore the DAG processor writes down which DAGs it has seen, and keeps those that are gone
until their runs can be over. See docs/adr/0016-files-cannot-hurt-each-other.md.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from automl.errors import Problem
from automl_airflow.study_files import PREFIX, StudyFile

_SCHEMA = 1
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Seen:
    """One DAG of the record.

    Attributes:
        file: path of its study file.
        lasts_s: how long its runs may take.
        gone_at: when it was found to be gone, as ISO 8601; None while it is there.
    """

    file: str
    lasts_s: float
    gone_at: str | None = None


def gone_study(dag_id: str, path: Path) -> StudyFile:
    """Return the study of a DAG whose file is gone: it has no schedule, and its `check` fails."""
    problem = Problem("", "the study file is gone, or has another name in it now")
    return StudyFile(path, dag_id, None, (problem,), schedule=None)


def unknown_study(dag_id: str, folder: Path) -> StudyFile:
    """Return the study of a DAG of which nothing but the id is known."""
    return gone_study(dag_id, folder / f"{dag_id.removeprefix(PREFIX)}.yaml")


def remember(
    files: Sequence[StudyFile], folder: Path, now: datetime | None = None
) -> list[StudyFile]:
    """Write down which DAGs there are, and return those that are gone but may have a run.

    A record that cannot be read or written is no reason to do without DAGs.
    """
    now = now or datetime.now(UTC)
    path = _path(folder)
    before = _read(path)
    after: dict[str, _Seen] = {}
    for file in files:
        known = before.get(file.dag_id)
        lasts_s = file.lasts.total_seconds()
        if file.spec is None and known is not None:  # its run began while the file was whole
            lasts_s = max(lasts_s, known.lasts_s)
        after[file.dag_id] = _Seen(file.place, lasts_s)
    for dag_id, seen in before.items():
        gone = seen if seen.gone_at else replace(seen, gone_at=now.isoformat())
        if dag_id not in after and _may_run(gone, now):
            after[dag_id] = gone
    if after != before:
        _write(path, after)
    return [gone_study(dag_id, Path(s.file)) for dag_id, s in after.items() if s.gone_at]


def _may_run(seen: _Seen, now: datetime) -> bool:
    assert seen.gone_at is not None
    return now - datetime.fromisoformat(seen.gone_at) < timedelta(seconds=seen.lasts_s)


def _path(folder: Path) -> Path:
    home = Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser()
    name = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:12]
    return home / "automl" / f"studies-{name}.json"


def _read(path: Path) -> dict[str, _Seen]:
    try:
        document: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = {dag_id: _Seen(**entry) for dag_id, entry in document["dags"].items()}
        for seen in found.values():
            timedelta(seconds=seen.lasts_s)
            datetime.fromisoformat(seen.gone_at or "2026-01-01")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        log.warning("The record of study DAGs cannot be read and is begun anew: %s", error)
        return {}
    return found


def _write(path: Path, seen: Mapping[str, _Seen]) -> None:
    document = {"schema": _SCHEMA, "dags": {dag_id: asdict(each) for dag_id, each in seen.items()}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, suffix=".new", delete=False
        ) as file:
            json.dump(document, file)
        Path(file.name).replace(path)
    except OSError as error:
        log.warning("The record of study DAGs cannot be written: %s", error)
